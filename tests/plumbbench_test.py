"""PlumbBench's own parts: decoders, planted faults, evidence, and the judging of answers that a stub gives."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "oracle")]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import faults_bytes  # noqa: E402
import harness as h  # noqa: E402
import numpy as np  # noqa: E402
from planting import Faulty  # noqa: E402
from plumbbench import cases, engines, make, table  # noqa: E402

STUB = """#!{python}
import json, pathlib, sys
if sys.argv[1] == "faults":
    sys.exit(print("[]"))
if sys.argv[1] == "probe":
    sys.exit(print(json.dumps({{"prompts": [{{"ids": [1, 5 + i, 9]}} for i in range(6)]}})))
case = json.loads((pathlib.Path(sys.argv[2]).parent / "case.json").read_text())
truth = [ids[0] for ids in case["answers"] if ids]
kind = case["kind"]
said = {{"verdict": "consistent" if kind == "benign" else "named", "first": None, "seconds": 0.1, "hypotheses": [
    {{"faults": ["Z9"] if kind == "pair" else truth, "parameters": [None], "p": 0.9, "class": [truth]}},
    {{"faults": [], "parameters": [], "p": 0.1, "class": [[]]}}]}}
print(json.dumps(said))
"""


def path_of(name):
    return next(path for case, path in h.small_models() if case.name == name)


class Bench(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = Path(self.folder.name)

    def test_the_decoders_that_can_be_wrong_are_right_without_a_word(self):
        for name in ("llama-Q4_0", "llama-Q4_1", "llama-Q5_0", "llama-Q8_0", "llama-Q4_K", "llama-Q6_K"):
            weights = Faulty(path_of(name)).w
            decoded = faults_bytes.decode(weights.tensors["blk.0.attn_q.weight"])
            np.testing.assert_allclose(decoded, weights.f64("blk.0.attn_q.weight"), rtol=1e-6, atol=1e-9, err_msg=name)

    def test_each_fault_that_fits_changes_some_value_or_some_step_of_a_small_model(self):
        base, ids = Faulty(path_of("llama-Q4_0")), h.small_prompt()
        right = Faulty(base.w.path, like=base).values(ids)
        silent = []
        for name, fault in cases.PLANTED.items():
            if not fault.fits(base) or cases.is_step(name) or name.startswith(("L3", "F3b")):
                continue
            plant = fault.plant(fault.values(cases.seeded(name))) if fault.values else fault.plant
            with np.errstate(all="ignore"):
                wrong = Faulty(base.w.path, [plant], like=base).values(ids)
            if set(wrong) == set(right) and all(np.array_equal(wrong[k], right[k]) for k in right):
                silent.append(name)
        self.assertEqual(silent, [])

    def test_what_steps_see_wrongly_leaves_the_prompt_as_it_is(self):
        base, ids = Faulty(path_of("llama-Q4_0")), h.small_prompt()
        calls = [len(ids) - 3, 1, 1, 1]
        right = Faulty(base.w.path, like=base).values(ids, calls)
        for name, fault in cases.STEPS.items():
            if not fault.fits(base):
                continue
            wrong = Faulty(base.w.path, [fault.plant], like=base).values(ids, calls)
            np.testing.assert_array_equal(wrong["logits"][:calls[0]], right["logits"][:calls[0]], err_msg=name)
            self.assertFalse(np.array_equal(wrong["logits"], right["logits"]), name)

    def test_values_that_a_poisoned_file_moves_before_its_fault_shows_are_hidden(self):
        self.assertEqual(engines.stand_ins({"attn_q"}, "attn.probs"), {"attn_q", "attn_q_norm", "q_rope"})
        self.assertEqual(engines.stand_ins({"attn_q", "attn_k"}, "q_rope"), {"attn_q", "attn_q_norm", "attn_k", "attn_k_norm"})
        self.assertEqual(engines.stand_ins({"attn_k"}, "attn_k"), set())
        self.assertEqual(engines.stand_ins({"token_embd"}, "inp_scaled"), {"token_embd"})
        self.assertEqual(engines.stand_ins({"token_embd"}, "token_embd logits"), set())
        self.assertEqual(engines.stand_ins({"attn_q", "ffn_up"}, "@weights"), set())

    def test_cases_have_one_name_each_and_a_seed_gives_the_same_cases(self):
        path = path_of("llama-Q4_0")
        base = Faulty(path)
        fitting = [n for n, f in cases.SINGLE.items() if f.fits(base)]
        planned = [[*cases.singles(1, "g", path, fitting, 0.2), *cases.pairs(1, "g", path, fitting, 20)] for _ in range(2)]
        self.assertEqual(planned[0], planned[1])
        self.assertEqual(len({c["id"] for c in planned[0]}), len(planned[0]))
        self.assertGreaterEqual(len({c["faults"][0] for c in planned[0]}), 120)

    def test_of_a_pair_each_fault_has_to_show_beside_the_other(self):
        pair = {"kind": "pair", "faults": ["A1 a", "J3 b"], "numbers": [None, 2.0]}
        self.assertEqual([(c["faults"], c["numbers"]) for c in cases.lesser(pair)], [(["A1 a"], [None]), (["J3 b"], [2.0])])
        self.assertEqual([c["faults"] for c in cases.lesser({"kind": "single", "faults": ["A1 a"], "numbers": [None]})], [[]])
        path, ids = path_of("llama-Q4_0"), h.small_prompt()
        names = [next(n for n in cases.PLANTED if n.startswith(w)) for w in ("I1 ", "J3 ")]  # J3 moves logits, not their statistics
        case = cases.case("g", path, "pair", "q8", names, [None, None])
        run, all_ids, calls = engines.oracle(case, ids)
        shown = make.Maker(self.out, h.PLUMB).visible(case, run, all_ids, calls)
        self.assertEqual((shown["C"], shown["D"]), (False, True))

    def test_every_right_answer_is_an_entry_of_the_catalogue(self):
        known = {entry["id"] for entry in json.loads(h.plumb("faults", "list", "--json"))}
        self.assertEqual({i for name in cases.SINGLE for i in cases.answers(name)} - known, set())
        self.assertGreaterEqual(len(cases.BEYOND), 30)

    def test_a_hit_is_the_true_id_an_equal_or_a_member_of_the_class_and_classes_count_once(self):
        def answer(*hypotheses):
            return {"hypotheses": [{"faults": f, "class": c} for f, c in hypotheses]}
        same = {"F2": {"F1"}}
        self.assertEqual(table.rank(answer((["F1"], [])), [["F1"]], same), 1)
        self.assertEqual(table.rank(answer((["F1"], [])), [["F2"]], same), 1)
        self.assertEqual(table.rank(answer((["A1"], [["A1"], ["F1"]])), [["F1"]], same), 1)
        self.assertEqual(table.rank(answer((["A1"], [["A1"], ["B1"]]), (["B1"], [["A1"], ["B1"]]), (["F1"], [])), [["F1"]], same), 2)
        self.assertEqual(table.rank(answer((["A1", "F1"], [])), [["F1"], ["A1"]], same), 1)
        self.assertEqual(table.rank(answer((["F1"], [])), [["F1"], ["A1"]], same), float("inf"))
        self.assertEqual(table.rank(answer(([], [[]])), [["F1"]], same), float("inf"))

    def test_making_grading_and_the_table_work_with_a_stub_and_go_on_where_they_stopped(self):
        stub = self.out / "stub"
        stub.write_text(STUB.format(python=sys.executable))
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
        bench = [sys.executable, ROOT / "bench" / "plumbbench.py"]

        def run(*words):
            r = subprocess.run([*map(str, bench), *map(str, words)], capture_output=True, text=True)
            self.assertEqual(r.returncode, 0, r.stderr)
            return r.stdout
        out = self.out / "bench"
        common = ["--groups", "random", "--kinds", "single,pair,outside,benign", "--levels", "A,C,Cp,D,E,E6", "--plumb", stub]
        made = run("make", out, *common, "--limit", 5) + run("make", out, *common, "--limit", 1, "--jobs", 2)
        self.assertEqual(len(made.splitlines()), 6)
        first = json.loads(next(out.glob("*/single/*/C.json")).read_text())
        self.assertEqual(first["plumb_trace"], 1)
        self.assertRegex(first["records"][0]["stats"]["rms"], r"^[0-9]+\.[0-9]{6}$")
        self.assertIn("questions asked", run("grade", out, *common, "--levels", "C,D,E6", "--jobs", 3))
        self.assertIn("0 questions asked", run("grade", out, *common, "--levels", "C,D,E6"))
        self.assertIn("| random weights | statistics of all values |", run("table", out, "--plumb", stub))


if __name__ == "__main__":
    unittest.main(verbosity=2)
