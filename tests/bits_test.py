"""The same logits bit for bit, whatever the threads, the pieces in which the prompt is fed and the instruction set.

docs/numerics.md section 1, shown on two real models and on random models of every architecture and format.
Needs $PLUMB. An instruction set that the CPU lacks is skipped with a word.
"""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402

PIECES = (1, 7, 32)


class Bits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.present, lacking = h.isas()
        for isa in lacking:
            print(f"skipped: this CPU has no {isa}", flush=True)

    def base(self, path, ids, **mode):
        return h.logits(path, ids, "-ub", 512, threads=1, **mode).tobytes()

    def expect(self, base, path, ids, pieces, threads, isa=None, **mode):
        with self.subTest(Path(path).name, pieces=pieces, threads=threads, isa=isa):
            y = h.logits(path, ids, "-ub", pieces, threads=threads, isa=isa, **mode)
            self.assertTrue(y.tobytes() == base, "other bits than one thread, whole prompt, best instruction set")

    def everything(self, path, ids, **mode):
        base = self.base(path, ids, **mode)
        for threads in (2, 3):
            self.expect(base, path, ids, 512, threads, **mode)
        for pieces in PIECES:
            self.expect(base, path, ids, pieces, 2, **mode)
        for isa in self.present:
            self.expect(base, path, ids, 512, 2, isa, **mode)
        for isa in self.present:
            self.expect(base, path, ids, 7, 3, isa, **mode)

    def test_smollm2_has_the_same_bits_everywhere(self):
        entry = h.golden("smollm2")[0]
        self.everything(h.real_model("smollm2")[0], (entry["ids"] + entry["greedy"])[:40])

    def test_gemma_has_the_same_bits_everywhere(self):
        entry = h.golden("gemma")[0]
        self.everything(h.real_model("gemma")[0], (entry["ids"] + entry["greedy"])[:40], all_positions=False)

    def test_the_likeliest_text_is_the_same_with_drafts_and_when_drawn(self):
        for name in ("smollm2", "gemma"):
            path = h.real_model(name)[0]
            run = ["run", "-m", path, "-p", "one two three one two three one two", "-n", 24, "-q", "--ignore-eos"]
            first = h.plumb(*run, "--temp", 0)
            for mode in (["--temp", "1e-30"], ["--temp", 0, "--spec", "ngram"], ["--temp", 0, "-t", 1, "-ub", 3],
                         ["--temp", 0, "--no-repack-cache"]):
                with self.subTest(name, mode=mode):
                    self.assertEqual(h.plumb(*run, *mode), first)

    def test_llama_has_the_same_bits_everywhere_in_every_format(self):
        for case, path in h.small_models():
            if case.arch == "llama" and not case.variant:
                self.everything(path, h.small_prompt(40))

    def test_every_small_model_has_the_same_bits_at_the_far_ends(self):
        for case, path in h.small_models():
            if case.arch != "llama" or case.variant:
                base = self.base(path, h.small_prompt(40))
                self.expect(base, path, h.small_prompt(40), 7, 3, "scalar")


if __name__ == "__main__":
    unittest.main()
