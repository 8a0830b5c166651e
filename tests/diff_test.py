"""plumb diff against the NumPy oracle: equal runs are the same, and a planted fault is found at its operation."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402
import numpy as np  # noqa: E402
import numpy_model  # noqa: E402
import trace_file  # noqa: E402


def model_path(name):
    return next(path for case, path in h.small_models() if case.name == name)


def diff(*arguments):
    """(exit status, the report as JSON) of plumb diff."""
    r = subprocess.run([h.PLUMB, "diff", *map(str, arguments), "--json"], capture_output=True, timeout=300)
    assert r.returncode in (0, 1, 2, 3), r.stderr.decode()
    return r.returncode, json.loads(r.stdout)


class Faulty(numpy_model.Model):
    """A model with one fault: `faults` maps a value's name to what takes its place."""

    def __init__(self, path, plant):
        super().__init__(path)
        plant(self)

    def trace(self, folder, ids):
        values = {}
        self.all_logits(ids, values)
        heads = {"attn_q": self.n_head, "q_rope": self.n_head, "attn_k": self.n_head_kv, "k_rope": self.n_head_kv,
                 "attn_v": self.n_head_kv}
        return trace_file.write(folder, ids, values, self.w.arch, heads)


def each_linear(change):
    """Puts change(model, name, x, right) in the place of every matrix product."""
    def plant(model):
        right = model.linear
        model.linear = lambda name, x: change(model, name, x, right)
    return plant


def swapped_gate_up(model, name, x, right):
    other = {"ffn_gate": "ffn_up", "ffn_up": "ffn_gate"}
    head, _, tail = name.rpartition(".")
    return right(f"{head}.{other[tail]}", x) if tail in other else right(name, x)


def wrong_base(model):
    model.rope = model.rope_local = numpy_model.Rope(model.head_dim, 500000.0, model.rope.style)


def wrong_style(model):
    style = "halves" if model.rope.style == "neighbours" else "neighbours"
    model.rope = model.rope_local = numpy_model.Rope(model.head_dim, 10000.0, style)


def late_positions(model):
    right = model.rope
    model.rope = model.rope_local = lambda x, positions: right(x, positions + 1)


def norm_without_weight(which):
    def plant(model):
        right = model.norm
        model.norm = lambda name, x: (numpy_model.rms_norm(x, 1.0, model.eps) if name.endswith(which) else right(name, x))
    return plant


def wrong_eps(model):
    model.eps = 0.3


def wrong_scale(model):
    model.scale = 1.0


def transposed(which):
    def change(model, name, x, right):
        if not name.endswith(which):
            return right(name, x)
        w = model.w.f64(name + ".weight")
        return x @ w.reshape(w.shape[::-1])  # the bytes read as if rows were columns
    return each_linear(change)


def without_bias(which):
    def change(model, name, x, right):
        y = right(name, x)
        return y - model.w.f64(name + ".bias") if name.endswith(which) else y
    return each_linear(change)


# name of the fault: models, what is planted, the operations that replay must mark: kinds of values
FAULTS = {
    "gate and up swapped": (("llama-F32", "qwen2-Q8_0", "llama-Q4_0"), each_linear(swapped_gate_up), {"ffn_gate", "ffn_up"}),
    "wrong rope base": (("llama-F32", "qwen3-Q8_0"), wrong_base, {"q_rope", "k_rope"}),
    "wrong rope style": (("llama-F32", "qwen2-F32"), wrong_style, {"q_rope", "k_rope"}),
    "positions from 1": (("llama-F32", "qwen3-Q8_0"), late_positions, {"q_rope", "k_rope"}),
    "norm weight missing": (("llama-F32", "qwen2-Q8_0"), norm_without_weight(".ffn_norm"), {"ffn_norm"}),
    "last norm weight missing": (("llama-F32", "gemma3-F32"), norm_without_weight("output_norm"), {"output_norm"}),
    "wrong scale of scores": (("llama-F32", "qwen3-Q8_0"), wrong_scale, {"attn"}),
    "wrong eps": (("llama-F32", ), wrong_eps, {"attn_norm", "ffn_norm", "output_norm"}),
    "attn_output transposed": (("llama-F32", "llama-Q4_0"), transposed("attn_output"), {"attn_output"}),
    "bias of k missing": (("qwen2-F32", "qwen2-Q8_0"), without_bias("attn_k"), {"attn_k"}),
}


def kind(value):
    return value.rsplit(".", 1)[-1]


class Diff(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.ids = h.small_prompt()

    def at(self, name):
        return Path(self.folder.name) / name

    def test_the_oracle_and_both_arithmetics_of_every_small_model_are_the_same_within_noise(self):
        for case, path in h.small_models():
            if case.format not in ("F32", "Q8_0"):
                continue
            with self.subTest(case.name):
                theirs = Faulty(path, lambda model: None).trace(self.at(case.name), self.ids)
                status, d = diff(theirs, "-m", path)
                self.assertEqual((status, d["verdict"], d["differ"]), (0, "same", []))
                ours = self.at(case.name + ".fast")
                h.plumb("trace", "-m", path, "--tokens", ",".join(map(str, self.ids)), "-o", ours)
                status, d = diff(ours, "-m", path)
                self.assertEqual((status, d["verdict"], d["differ"]), (0, "same", []))

    def test_a_planted_fault_is_found_where_it_is_and_nowhere_else(self):
        for fault, (models, plant, kinds) in FAULTS.items():
            for name in models:
                with self.subTest(f"{fault} in {name}"):
                    theirs = Faulty(model_path(name), plant).trace(self.at(f"{fault} {name}"), self.ids)
                    status, d = diff(theirs, "-m", model_path(name))
                    self.assertIn(status, (1, 2))
                    self.assertIn(kind(d["first"]), kinds)
                    self.assertEqual({kind(v) for v in d["differ"]}, kinds)

    def test_two_faults_at_once_are_both_marked(self):
        def both(model):
            wrong_base(model)
            each_linear(swapped_gate_up)(model)
        theirs = Faulty(model_path("llama-F32"), both).trace(self.at("both"), self.ids)
        _, d = diff(theirs, "-m", model_path("llama-F32"))
        self.assertEqual({kind(v) for v in d["differ"]}, {"q_rope", "k_rope", "ffn_gate", "ffn_up"})

    def test_rows_of_q_and_k_in_the_order_of_hugging_face_are_a_gauge_and_no_fault(self):
        model = Faulty(model_path("llama-F32"), lambda m: None)
        values = {}
        model.all_logits(self.ids, values)
        heads = {"attn_q": model.n_head, "q_rope": model.n_head, "attn_k": model.n_head_kv, "k_rope": model.n_head_kv}
        for name, value in values.items():
            if kind(name) in heads:
                x = np.asarray(value).reshape(len(value), heads[kind(name)], -1)
                values[name] = np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
        theirs = trace_file.write(self.at("hf"), self.ids, values, "llama", heads)
        ours = trace_file.write(self.at("gguf"), self.ids, self.right_values(), "llama", heads)
        for other in ((ours,), ("-m", model_path("llama-F32"))):
            status, d = diff(theirs, *other)
            self.assertEqual((status, d["first"], d["differ"]), (0, None, []))
            self.assertEqual({v["gauge"] for v in d["values"] if "gauge" in v}, {"qk_halves"})

    def right_values(self):
        values = {}
        numpy_model.Model(model_path("llama-F32")).all_logits(self.ids, values)
        return values

    def test_other_token_ids_are_told_first(self):
        path = model_path("llama-F32")
        a, b = self.at("a"), self.at("b")
        h.plumb("trace", "-m", path, "--tokens", "1,5,6,7", "-o", a)
        h.plumb("trace", "-m", path, "--tokens", "1,5,9,7", "-o", b)
        status, d = diff(a, b)
        self.assertEqual((status, d["token_at"], d["first"]), (1, 2, None))

    def test_a_foreign_or_cut_trace_is_refused_in_one_line_with_status_3(self):
        bad = self.at("bad.json")
        for text in ("", "{}", '{"plumb_trace":1}', '{"plumb_trace":1,"records":[{"value":"x","shape":[1,1e99]}]}'):
            bad.write_text(text)
            r = subprocess.run([h.PLUMB, "diff", bad, bad], capture_output=True, text=True)
            self.assertEqual(r.returncode, 3, text)
            self.assertEqual(len(r.stderr.splitlines()), 1, r.stderr)

    def test_the_report_is_short_and_narrow(self):
        theirs = Faulty(model_path("llama-F32"), wrong_base).trace(self.at("x"), self.ids)
        r = subprocess.run([h.PLUMB, "diff", theirs, "-m", model_path("llama-F32")], capture_output=True, text=True)
        lines = r.stdout.splitlines()
        self.assertLessEqual(len(lines), 12)
        self.assertLessEqual(max(map(len, lines)), 100, r.stdout)
        self.assertIn("DIVERGES at  blk.0.q_rope  (rope)", lines[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
