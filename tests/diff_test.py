"""plumb diff against the NumPy oracle: equal runs are the same, and a planted fault is found at its operation."""

import json
import math
import os
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402
import numpy as np  # noqa: E402
import trace_file  # noqa: E402
from arithmetics import ARITHMETICS  # noqa: E402, F401
import numpy_model as nm  # noqa: E402
from faults import FAULTS, Faulty  # noqa: E402
from planting import change_attend  # noqa: E402


def model_path(name):
    return next(path for case, path in h.small_models() if case.name == name)


def diff(*arguments):
    """(exit status, the report as JSON) of plumb diff."""
    r = subprocess.run([h.PLUMB, "diff", *map(str, arguments), "--json"], capture_output=True, timeout=300)
    assert r.returncode in (0, 1, 2, 3), r.stderr.decode()
    return r.returncode, json.loads(r.stdout)


def trace_of(folder, path, plants, ids, arithmetic="f64"):
    """A run of the oracle with faults as a trace."""
    model = Faulty(path, plants, arithmetic)
    return trace_file.write(folder, ids, model.values(ids), model.w.arch, model.heads())


def kind(value):
    return value.rsplit(".", 1)[-1]


def layer(value):
    return int(value.split(".")[1]) if value.startswith("blk.") else None


MODELS = ("llama-Q4_0", "qwen2-Q8_0", "qwen3-F32", "gemma3-Q8_0")  # the first gets all faults, the others those of their kind

STAGES = (("token_embd", ), ("inp_scaled", ), ("attn_norm", ), ("attn_q", "attn_k", "attn_v"), ("attn_q_norm", "attn_k_norm"),
          ("q_rope", "k_rope"), ("attn", ), ("attn_output", ), ("post_attention_norm", ), ("attn_out", ), ("ffn_norm", ),
          ("ffn_gate", "ffn_up"), ("ffn_act", ), ("ffn_down", ), ("post_ffw_norm", ), ("ffn_out", ), ("output_norm", ),
          ("logits", ))


def printed_statistics(values):
    """rms, min and max over all tokens as a log prints them."""
    return {name: {"rms": f"{math.sqrt(np.mean(v * v)):.6f}", "min": f"{v.min():.6f}", "max": f"{v.max():.6f}"}
            for name, v in values.items()}


def near(a, b):
    return all(abs(float(a[name][s]) - float(b[name][s])) <= 0.03 * float(b[name]["rms"]) + 2e-6 for name in a for s in a[name])


def neighbours(value, fault, values):
    """Whether the value is one that the fault makes wrong first, or the operation before or after one."""
    stages = [stage for stage in STAGES if any(kind(v) in stage for v in values)]
    at = next(i for i, stage in enumerate(stages) if kind(value) in stage)
    near_by = {k for stage in stages[max(0, at - 1):at + 2] for k in stage}
    return bool(near_by & fault.kinds) and layer(value) in (None, *(fault.layers or {0}), *({0} if fault.layers else {1}))


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
                theirs = trace_of(self.at(case.name), path, [], self.ids)
                status, d = diff(theirs, "-m", path)
                self.assertEqual((status, d["verdict"], d["differ"]), (0, "same", []))
                ours = self.at(case.name + ".fast")
                h.plumb("trace", "-m", path, "--tokens", ",".join(map(str, self.ids)), "-o", ours)
                status, d = diff(ours, "-m", path)
                self.assertEqual((status, d["verdict"], d["differ"]), (0, "same", []))

    def test_each_planted_fault_is_placed_and_replay_marks_its_operations_and_no_others(self):
        planted, placed, exact, missed = 0, 0, 0, []
        for name in MODELS:
            path = model_path(name)
            model = Faulty(path)
            right = model.values(self.ids)
            for fault in FAULTS.values():
                if not fault.fits(model) or name != MODELS[0] and not fault.archs:
                    continue
                theirs = Faulty(path, [fault.plant], "f32")
                values = theirs.values(self.ids)
                if np.abs(values["logits"] - right["logits"]).max() < 1e-3 * np.abs(right["logits"]).max():
                    continue  # this prompt does not show it
                folder = self.at(f"{planted}")
                trace_file.write(folder, self.ids, values, model.w.arch, model.heads())
                status, d = diff(folder, "-m", path)
                planted += 1
                wrong = {v for v in d["differ"] if kind(v) not in fault.kinds}
                found = status in (1, 2) and d["first"] is not None and kind(d["first"]) in fault.kinds
                whole = {kind(v) for v in d["differ"]} == {k for k in fault.kinds if any(kind(v) == k for v in values)}
                placed, exact = placed + found, exact + (whole and not wrong)
                if not found or wrong or not whole:
                    missed.append(f"{name}: {fault.name}: first {d['first']}, marked {sorted({kind(v) for v in d['differ']})}")
        print(f"{planted} planted faults: {placed} placed, {exact} marked exactly", *missed, sep="\n  ")
        self.assertGreaterEqual(planted, 55)
        self.assertGreaterEqual(placed, 0.95 * planted)
        self.assertGreaterEqual(exact, 0.95 * planted)

    def test_from_printed_statistics_alone_the_operation_or_its_neighbour_is_found(self):
        planted, placed, missed = 0, 0, []
        for name in MODELS:
            path = model_path(name)
            model = Faulty(path)
            right = printed_statistics(model.values(self.ids))
            for fault in FAULTS.values():
                if not fault.fits(model) or name != MODELS[0] and not fault.archs:
                    continue
                values = Faulty(path, [fault.plant], "q8").values(self.ids)
                lines = printed_statistics(values)
                if near(lines, right):
                    continue  # six decimals of this prompt do not show it
                evidence = self.at(f"{planted}.json")
                evidence.write_text(json.dumps({"plumb_trace": 1, "input": {"tokens": self.ids}, "records": [
                    {"value": value, "tokens": [0, len(self.ids)], "stats": stats} for value, stats in lines.items()]}))
                _, d = diff(evidence, "-m", path)
                planted += 1
                found = d["first"] is not None and neighbours(d["first"], fault, values)
                placed += found
                if not found:
                    missed.append(f"{name}: {fault.name}: first {d['first']}")
        print(f"{planted} faults in statistics: {placed} placed", *missed, sep="\n  ")
        self.assertGreaterEqual(planted, 55)
        self.assertGreaterEqual(placed, 0.85 * planted)

    def inner_trace(self, name, path, change):
        """A run whose attention goes through change(part, rows), with its parts recorded; keys padded with what nobody sees."""
        inner, rng = {}, np.random.default_rng(3)

        def attend(m, right, q, k, v, start, scale, window):
            t, n_head, group = len(q), q.shape[1], q.shape[1] // k.shape[1]
            owner = np.arange(n_head) // group
            s = change("kq", np.einsum("thd,shd->ths", q, k[:, owner]))
            query, key = np.arange(t)[:, None, None], np.arange(len(k))[None, None, :]
            hidden = (key > query) | ((query - key >= window) if window else False)
            p = change("probs", nm.softmax(np.where(hidden, -1e30, s * scale)))
            y = change("kqv", np.einsum("ths,shd->thd", p, v[:, owner]))
            blk, more = f"blk.{m.layer}.attn.", [(0, 0), (0, 0), (0, 9)]
            inner[blk + "kq"] = np.pad(s, more) + (np.arange(len(k) + 9) > query) * rng.normal(size=(t, n_head, len(k) + 9))
            inner[blk + "probs"], inner[blk + "kqv"] = np.pad(p, more), y
            return y.reshape(t, -1)
        model = Faulty(path, [change_attend(attend)])
        values = model.values(self.ids) | inner
        return trace_file.write(self.at(name), self.ids, values, model.w.arch, model.heads())

    def test_values_inside_attention_are_compared_and_replayed_by_head(self):
        def at(part, change):
            return lambda name, rows: change(rows) if name == part else rows
        right = at("none", None)
        second_head = lambda x: np.concatenate([x[:, :1], 1.3 * x[:, 1:2], x[:, 2:]], 1)  # noqa: E731
        sees_next = lambda p: 0.9 * p + 0.1 * np.roll(p, 1, axis=-1)  # noqa: E731
        for name in ("llama-Q4_0", "gemma3-Q8_0"):  # the second has windows
            path = model_path(name)
            status, d = diff(self.inner_trace(name, path, right), "-m", path)
            self.assertEqual((status, d["verdict"], d["differ"], d["only_theirs"]), (0, "same", [], []), name)
            layers = Faulty(path).n_layer
            for part in ("attn.kq", "attn.probs", "attn.kqv"):
                for found in (d["values"], d["replay"]):
                    self.assertEqual(sum(v["value"].endswith(part) for v in found), layers, part)
            for part, change in (("kq", second_head), ("probs", sees_next), ("kqv", second_head)):
                with self.subTest(f"{name} {part}"):
                    theirs = self.inner_trace(f"{name} {part}", path, at(part, change))
                    status, d = diff(theirs, "-m", path)
                    self.assertEqual(d["first"], f"blk.0.attn.{part}")
                    self.assertEqual({v.split(".", 2)[-1] for v in d["differ"]}, {f"attn.{part}", "attn"})
                    heads = next(v["by_head"] for v in d["replay"] if v["value"] == d["first"])
                    if change is second_head:
                        self.assertGreater(heads[1], 0.2)
                        self.assertLess(max(heads[:1] + heads[2:]), 1e-6)

    def test_our_own_values_inside_attention_are_recorded_step_by_step(self):
        path = model_path("qwen3-F32")
        ours = self.at("inner")
        h.plumb("trace", "-m", path, "--tokens", ",".join(map(str, self.ids)), "--steps", "3", "--arith", "ref32",
                "--only", "*,*.attn.*", "-o", ours)
        for other in (("-m", path), (ours, )):
            status, d = diff(ours, *other)
            self.assertEqual((status, d["verdict"], d["only_theirs"]), (0, "same", []))
            inner = [v for v in d["values"] if ".attn." in v["value"]]
            self.assertEqual({v["tokens"] for v in inner}, {len(self.ids) + 3})
            self.assertEqual(len(inner), 3 * Faulty(path).n_layer)
        r = subprocess.run([h.PLUMB, "trace", "-m", path, "--tokens", "1,2", "--only", "*.attn.probs", "-o", self.at("no")],
                           capture_output=True, text=True)
        self.assertEqual(r.returncode, 4)
        self.assertIn("ref64 or ref32", r.stderr)

    def test_projections_fused_head_by_head_are_taken_apart(self):
        path = model_path("qwen3-F32")
        model = Faulty(path)
        values, heads, t = model.values(self.ids), model.heads(), len(self.ids)
        for tagged in (False, True):
            fused = {}
            for name, value in values.items():
                blk = name.rsplit(".", 1)[0]
                if kind(name) == "attn_q":
                    parts = [values[f"{blk}.attn_{w}"].reshape(t, model.n_head_kv, -1) for w in "qkv"]
                    fused[blk + ".attn_qkv"] = np.concatenate(parts, axis=-1).reshape(t, -1)
                elif kind(name) not in ("attn_k", "attn_v"):
                    fused[name] = value
            theirs = trace_file.write(self.at(f"heads {tagged}"), self.ids, fused, "qwen3", heads)
            if tagged:
                header = json.loads((theirs / "trace.json").read_text()) | {"gauges": ["qkv_by_head"]}
                (theirs / "trace.json").write_text(json.dumps(header))
            status, d = diff(theirs, "-m", path)
            self.assertEqual((status, d["first"], d["differ"], d["only_theirs"]), (0, None, [], []))
            self.assertEqual({kind(v["value"]) for v in d["values"] if v.get("gauge") == "qkv_by_head"},
                             {"attn_q", "attn_k", "attn_v"})
            self.assertEqual(len(d["replay"]), len(values))

    def test_two_faults_at_once_are_both_marked(self):
        both = [FAULTS["F3 rope base 50 times larger"].plant, FAULTS["I1 gate and up exchanged"].plant]
        theirs = trace_of(self.at("both"), model_path("llama-F32"), both, self.ids)
        _, d = diff(theirs, "-m", model_path("llama-F32"))
        self.assertEqual({kind(v) for v in d["differ"]}, {"q_rope", "k_rope", "ffn_gate", "ffn_up"})

    def test_rows_of_q_and_k_in_the_order_of_hugging_face_are_a_gauge_and_no_fault(self):
        model = Faulty(model_path("llama-F32"))
        values = model.values(self.ids)
        heads = {k: n for k, n in model.heads().items() if k != "attn_v"}
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

    def test_norms_without_their_weight_fused_projections_and_heads_before_tokens_are_gauges(self):
        path = model_path("qwen3-F32")
        model = Faulty(path)
        values, heads = model.values(self.ids), model.heads()
        for name in list(values):
            if kind(name) in ("attn_norm", "ffn_norm"):
                values[name] = values[name] / model.w.f64(name + ".weight")
        fused = {}
        for name, value in values.items():
            blk, what = name.rsplit(".", 1) if "." in name else ("", name)
            if what == "attn_q":
                fused[blk + ".attn_qkv"] = np.concatenate([values[f"{blk}.attn_{w}"] for w in "qkv"], axis=-1)
            elif what == "ffn_gate":
                fused[blk + ".ffn_gate_up"] = np.concatenate([value, values[blk + ".ffn_up"]], axis=-1)
            elif what in ("q_rope", "k_rope"):
                x = value.reshape(len(value), heads[what], -1)
                fused[name] = x.transpose(1, 0, 2).reshape(x.shape)
            elif what not in ("attn_k", "attn_v", "ffn_up"):
                fused[name] = value
        theirs = trace_file.write(self.at("gauged"), self.ids, fused, "qwen3", heads)
        lines = [json.loads(line) for line in (theirs / "records.jsonl").read_text().splitlines()]
        for record in lines:
            if kind(record["value"]) in ("q_rope", "k_rope"):
                record["gauges"] = ["heads_first"]
        (theirs / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
        status, d = diff(theirs, "-m", path)
        self.assertEqual((status, d["first"], d["differ"], d["only_theirs"]), (0, None, [], []))
        self.assertEqual({v["gauge"] for v in d["values"] if "gauge" in v}, {"norm_unweighted"})
        self.assertLessEqual({"blk.0.attn_k", "blk.1.ffn_up"}, {v["value"] for v in d["values"]})
        self.assertEqual(len(d["replay"]), len(values))

    def right_values(self):
        return Faulty(model_path("llama-F32")).values(self.ids)

    def test_a_floor_that_is_kept_says_what_it_said_when_it_was_measured(self):
        path = model_path("llama-Q4_0")
        trace = trace_of(self.at("healthy"), path, [], self.ids, "q8")
        with unittest.mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.at("cache"))}):
            self.assertEqual(diff(trace, "-m", path), diff(trace, "-m", path))
            self.assertTrue(list(self.at("cache").rglob("floors/*.json")))

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
        theirs = trace_of(self.at("x"), model_path("llama-F32"), [FAULTS["F3 rope base 50 times larger"].plant], self.ids)
        r = subprocess.run([h.PLUMB, "diff", theirs, "-m", model_path("llama-F32")], capture_output=True, text=True)
        lines = r.stdout.splitlines()
        self.assertLessEqual(len(lines), 12)
        self.assertLessEqual(max(map(len, lines)), 100, r.stdout)
        self.assertIn("DIVERGES at  blk.0.q_rope  (rope)", lines[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
