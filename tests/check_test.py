"""plumb check: holds on correct runs of the oracle and of our own; each test is violated by the fault it is made for."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import diff_test as d  # noqa: E402
import harness as h  # noqa: E402
import numpy as np  # noqa: E402
import trace_file  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CASE = ROOT / "cases" / "rustorch"


def check(*arguments):
    r = subprocess.run([h.PLUMB, "check", *map(str, arguments), "--json"], capture_output=True, timeout=300)
    assert r.returncode in (0, 1, 2, 3), r.stderr.decode()
    return r.returncode, {f["test"]: f for f in json.loads(r.stdout)["findings"]}


class Check(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.ids = h.small_prompt()

    def at(self, name):
        return Path(self.folder.name) / name

    def violated(self, findings):
        return {test for test, f in findings.items() if f["outcome"] == "violated"}

    def test_correct_runs_violate_nothing(self):
        for case, path in h.small_models():
            if case.format not in ("F32", "Q8_0"):
                continue
            with self.subTest(case.name):
                for arith in ("fast", "ref64"):
                    trace = self.at(f"{case.name}.{arith}")
                    h.plumb("trace", "-m", path, "--tokens", ",".join(map(str, self.ids)), "--arith", arith, "-o", trace)
                    status, found = check(trace, "-m", path)
                    self.assertEqual((status, self.violated(found)), (0, set()), found)
                    self.assertLessEqual({"residual", "first token", "rope norms", "alignment"}, set(found))

    def faulty(self, name, plant):
        trace = d.trace_of(self.at("faulty " + name), d.model_path(name), [d.FAULTS[plant].plant], self.ids)
        return check(trace, "-m", d.model_path(name))

    def test_a_wrong_rope_base_is_told_with_its_number(self):
        status, found = self.faulty("llama-F32", "F3 rope base 50 times larger")
        self.assertEqual((status, self.violated(found)), (1, {"rope base"}))
        self.assertRegex(found["rope base"]["text"], "base (500000|49999\\d|50000\\d), but the file says 10000")

    def test_positions_from_1_turn_token_0(self):
        _, found = self.faulty("llama-F32", "F9 positions from 1")
        self.assertIn("rope origin", self.violated(found))

    def test_a_missing_residual_is_no_sum(self):
        _, found = self.faulty("llama-F32", "D14 residual of attention missing")
        self.assertIn("residual", self.violated(found))

    def test_a_missing_mask_shows_at_token_0(self):
        _, found = self.faulty("llama-F32", "G6 no causal mask")
        self.assertIn("first token", self.violated(found))

    def test_the_first_value_that_is_not_finite_is_named(self):
        path = d.model_path("llama-F32")
        values = d.Faulty(path).values(self.ids)
        values["blk.1.ffn_up"][3, 7] = np.nan
        values["blk.1.ffn_down"][3, :] = np.inf
        status, found = check(trace_file.write(self.at("nan"), self.ids, values, "llama", {}))
        self.assertEqual(status, 1)
        self.assertEqual(found["finite"]["value"], "blk.1.ffn_up")

    def test_the_rustorch_log_is_read_without_loss_and_its_lattice_is_found(self):
        status, found = check(CASE / "seed.log")
        self.assertEqual(status, 0)
        self.assertIn("38, 0, 37 (the only solution", found["lattice"]["text"])
        self.assertIn("repetition penalty of 1.10 per occurrence", found["sampler"]["text"])
        self.assertIn('"[LAYER 0] After', found["label"]["text"])
        evidence = self.at("seed.json")
        r = subprocess.run([h.PLUMB, "record", "log", CASE / "seed.log", "-o", evidence], capture_output=True, text=True)
        self.assertEqual(r.returncode, 0, r.stderr)
        text = evidence.read_text()
        for line in (CASE / "seed.log").read_text().splitlines():
            for word in line.replace("..", " ").replace("=", " ").replace(",", " ").replace("[", " ").replace("]", " ").split():
                if word.replace(".", "").replace("-", "").isdigit() and word not in ("-", "."):
                    self.assertIn(word, text, line)
        self.assertEqual(check(evidence)[1]["lattice"], found["lattice"])

    def test_calls_cut_otherwise_must_agree(self):
        path = d.model_path("llama-F32")
        ids = ",".join(map(str, self.ids))
        a, b = self.at("a"), self.at("b")
        h.plumb("trace", "-m", path, "--tokens", ids, "-o", a)
        h.plumb("trace", "-m", path, "--tokens", ids, "-ub", "3", "-o", b)
        self.assertEqual(check(a, "--again", b)[1]["calls"]["outcome"], "holds")
        c = d.trace_of(self.at("c"), path, [d.FAULTS["G1 scale missing"].plant], self.ids)
        self.assertEqual(check(a, "--again", c)[1]["calls"]["outcome"], "violated")


if __name__ == "__main__":
    unittest.main(verbosity=2)
