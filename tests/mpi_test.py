"""--mpi: the ranks that mpirun starts give one rank's bits, the first alone prints, and a rank that fails ends all.

Needs $PLUMB, mpirun, and libplumb_mpi.so beside $PLUMB; skipped with the reason without them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402

MPIRUN = shutil.which("mpirun")
LIBRARY = Path(h.PLUMB).parent / "libplumb_mpi.so"
# More ranks than cores, also as root in a container.
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}


def missing():
    if not MPIRUN:
        return "no mpirun on this machine"
    return "" if LIBRARY.is_file() else f"no {LIBRARY}: the build found no MPI"


def mpirun(*arguments):
    return subprocess.run([MPIRUN, *map(str, arguments)], capture_output=True, env=ENVIRONMENT, timeout=300)


class WithoutMpi(unittest.TestCase):
    @unittest.skipIf(LIBRARY.is_file(), "libplumb_mpi.so is here")
    def test_where_the_library_is_missing_that_is_said(self):
        r = subprocess.run([h.PLUMB, "run", "--mpi", "-m", h.real_model("smollm2")[0], "-p", "x"], capture_output=True,
                           timeout=60)
        self.assertEqual(r.returncode, 4)
        self.assertIn(b"libplumb_mpi.so", r.stderr)


@unittest.skipIf(missing(), missing())
class Ranks(unittest.TestCase):
    def setUp(self):
        self.model = h.real_model("smollm2")[0]  # three kv heads

    def output(self, ranks, *arguments):
        """Standard output of `plumb ARGUMENTS` on so many ranks of one thread each; 0: without --mpi."""
        if ranks == 0:
            return h.plumb(*arguments, "-t", 2).encode()
        r = mpirun("-n", ranks, h.PLUMB, *arguments, "--mpi", "-t", 1)
        self.assertEqual(r.returncode, 0, r.stderr)
        return r.stdout

    def expect_same(self, *arguments, ranks=(1, 2, 3)):
        want = self.output(0, *arguments)
        self.assertTrue(want)
        for n in ranks:
            with self.subTest(arguments=arguments[0], ranks=n):
                self.assertEqual(self.output(n, *arguments), want)

    def test_answers_are_printed_once_and_are_those_of_one_rank(self):
        self.expect_same("run", "-m", self.model, "-p", "The capital of France is", "-n", 24, "--temp", 0, "-q")
        self.expect_same("run", "-m", self.model, "-p", "one two one two one", "-n", 16, "--temp", 0.8, "--seed", 5, "-q",
                         "--spec", "ngram", ranks=(2,))

    def test_logits_and_other_values_have_the_same_bits(self):
        ids = ["-m", self.model, "--tokens", "19556,905,282,260,1774,30,198"]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.npy"
            for more in ([], ["--all"], ["--all", "--act", "16", "-ub", 3], ["--all", "--stop-after", "blk.4.attn_k"],
                         ["--stop-after", "blk.29.ffn_act"]):
                found = []
                for n in (0, 2, 3):
                    self.output(n, "logits", *ids, *more, "-o", out)
                    found.append(out.read_bytes())
                self.assertEqual(found[1:], found[:1] * 2, more)

    def test_perplexity_is_the_same(self):
        text = Path(__file__).resolve().parents[1] / "README.md"
        self.expect_same("perplexity", "-m", self.model, "-f", text, "-c", 64, "--chunks", 2, ranks=(2,))

    def test_more_ranks_than_kv_heads_are_refused(self):
        r = mpirun("-n", 4, h.PLUMB, "run", "--mpi", "-m", self.model, "-p", "x", "-t", 1)
        self.assertNotEqual(r.returncode, 0)
        self.assertIn(b"[split.heads]", r.stderr)

    def test_a_rank_that_fails_ends_all_with_its_message(self):
        good = [h.PLUMB, "run", "--mpi", "-m", self.model, "-p", "x", "-n", 1000, "-t", 1]
        bad = [h.PLUMB, "run", "--mpi", "-m", "no-such-file.gguf", "-t", 1, "-p", "x"]
        start = time.monotonic()
        r = mpirun("-n", 1, *good, ":", "-n", 1, *bad)
        self.assertNotEqual(r.returncode, 0)
        self.assertIn(b"no-such-file.gguf", r.stderr)
        self.assertLess(time.monotonic() - start, 60)

    def test_ranks_with_other_flags_or_another_model_are_refused(self):
        one = [h.PLUMB, "run", "--mpi", "-m", self.model, "-p", "x", "-n", 2, "-t", 1]
        other_model = [*one[:4], h.real_model("gemma")[0], *one[5:]]
        for other in ([*one, "--act", "16"], [*one, "-ctk", "f32"], other_model):
            r = mpirun("-n", 1, *one, ":", "-n", 1, *other)
            self.assertNotEqual(r.returncode, 0)
            self.assertIn(b"the same flags on all ranks", r.stderr)

    def test_what_ranks_cannot_share_is_refused(self):
        for flags, word in ((["--arith", "ref32"], b"--arith fast"), (["--backend", "cuda"], b"--backend cpu"),
                            (["--fault", "rope.base"], b"--fault")):
            r = subprocess.run([h.PLUMB, "run", "--mpi", "-m", self.model, "-p", "x", *flags], capture_output=True,
                               env=ENVIRONMENT, timeout=60)
            self.assertEqual(r.returncode, 4, flags)
            self.assertIn(word, r.stderr)


if __name__ == "__main__":
    unittest.main()
