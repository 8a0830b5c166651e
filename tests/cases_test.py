"""Bugs that were met in the wild, planted into the NumPy oracle, are named from a log of a few lines (docs/diagnose.md)."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "oracle")]
import harness as h  # noqa: E402
import numpy as np  # noqa: E402
import numpy_model as nm  # noqa: E402
from diff_test import model_path, printed_statistics  # noqa: E402
from diagnose_test import diagnose, named  # noqa: E402
from faults import FAULTS, restored  # noqa: E402
from faults_bytes import BYTES  # noqa: E402
from planting import Faulty, change_attend, change_rope, change_weight, tail  # noqa: E402

RULES = h.ROOT / "cases" / "rustorch" / "rustorch.rules"
LINES = ("attn_norm", "attn_out", "ffn_down", "ffn_out")


def factors_ignored(model):
    model.rope = nm.Rope(model.rope.n_rot, 500000.0, model.rope.style)


def another_eps(model):
    model.eps = 2e-3


def loader_of_transformers(model):
    """Restores rows of q rightly, those of k as if they had as many heads, and rotates halves."""
    for name in ("attn_q", "attn_k"):
        change_weight(lambda n, w, name=name: tail(n) == name, lambda w, m: restored(w, m.n_head))(model)
    change_rope(style=lambda r: "halves")(model)


SHOWN = [  # where it was met, model, what is planted, right answers, length of the prompt
    ("candle#3410: RoPE pairs", "llama-Q8_0", FAULTS["F1 other pairs are rotated"].plant, "F1 F2 F2b", 24),
    ("llama.cpp#3018: the converter permutes rows of k by the heads of q", "llama-Q8_0",
     FAULTS["E8 rows of k permuted by the heads of q"].plant, "E8", 24),
    ("transformers#31788: the loader puts them back by the heads of q", "llama-Q8_0", loader_of_transformers, "E8c", 24),
    ("mlxcel#998: no causal mask", "llama-Q8_0", FAULTS["G6 no causal mask"].plant, "G6", 24),
    ("ANEForge#253: biases of Qwen2 ignored", "qwen2-Q8_0", FAULTS["E1 biases of q, k, v ignored"].plant, "E1", 24),
    ("llama.cpp#2373: another eps", "llama-Q8_0", another_eps, "D1", 24),
    ("RusTorch: gate and up exchanged", "llama-Q8_0", FAULTS["I1 gate and up exchanged"].plant, "I1b", 24),
    ("mlx-vlm#1710: llama 3's rope factors ignored, on a long prompt", "llama-llama3-Q8_0", factors_ignored, "F4", 96),
    ("Liger-Kernel#74: the 1 of Gemma's (1 + w) missing", "gemma3-Q8_0", FAULTS["D6 the 1 of (1 + w) missing"].plant, "D6", 24),
    ("transformers#29402: Gemma's embedding not scaled", "gemma3-Q8_0", FAULTS["C1 sqrt(d) missing"].plant, "C1", 24),
    ("unsloth#8253: sliding window off", "gemma3-Q8_0",
     change_attend(lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, scale, 0)), "G8", 24),
]


def rustorch_log(values, ids):
    """What RusTorch printed of its first layer and of its logits, and the prompt's ids."""
    def line(rows):
        rows = np.asarray(rows, np.float64)
        return f"rms={np.sqrt(np.mean(rows * rows)):.6f}, min={rows.min():.6f}, max={rows.max():.6f}"
    last = values["logits"][-1]
    top = np.argsort(-last)[:3]
    row = ", ".join(f"{np.float32(x):.8g}" for x in values["token_embd"][0].ravel()[:3])
    return "\n".join([
        f"[INPUT] prompt tokens=[{', '.join(map(str, ids))}]", "[STEP 0] Before forward:", "   start_position=0",
        f"[GET_EMB] token={ids[0]} embedding[0..10]=[{row}, ...]",
        f"[LAYER 0] Input: {line(values['token_embd'])}",
        f"[LAYER 0] After Attention: {line(values['blk.0.attn_output'])}",
        f"[LAYER 0] After FFN: {line(values['blk.0.ffn_down'])}",
        f"[LAYER 0] Output: {line(values['blk.0.ffn_out'])}",
        f"[LOGITS STEP 0] Stats: max={last.max():.4f}, min={last.min():.4f}, mean={last.mean():.4f}",
        "[LOGITS STEP 0] Top 10:", *[f"  #{i + 1}: token={t} logit={last[t]:.4f}" for i, t in enumerate(top)]]) + "\n"


class Cases(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def log_of(self, model, plants, n, drop=()):
        """The evidence of four lines of every layer."""
        ids = h.small_prompt(n)
        values = Faulty(model_path(model), plants, "q8").values(ids)
        records = [{"value": value, "tokens": [0, n], "stats": stats} for value, stats in printed_statistics(values).items()
                   if value.startswith("blk.") and value.rsplit(".", 1)[-1] in LINES and value not in drop]
        return self.evidence(ids, records), records

    def evidence(self, ids, records, **more):
        out = self.folder / "evidence.json"
        out.write_text(json.dumps({"plumb_trace": 1, "input": {"tokens": ids, **more}, "records": records}))
        return out

    def test_bugs_of_the_wild_are_named_from_four_lines_of_each_layer(self):
        missed = []
        for story, model, plant, answers, n in SHOWN:
            evidence, _ = self.log_of(model, [plant], n)
            _, d = diagnose(evidence, "-m", model_path(model))
            if d["verdict"] != "named" or not named(d) & set(answers.split()):
                missed.append(f"{story}: {d['verdict']} {d['hypotheses'][0]['class'][:3]}")
        self.assertEqual(missed, [])

    def test_habits_with_text_are_named_from_the_ids(self):
        text, path = "Hello world\nand more", model_path("llama-Q8_0")
        right = json.loads(h.plumb("tokenize", "-m", path, "-p", text, "--ids"))
        spaces = json.loads(h.plumb("tokenize", "-m", path, "-p", text.replace("\n", " "), "--ids"))
        for ids, answer in ((right[1:], "K1"), (right[:1] + right, "K2"), (spaces, "K7")):
            _, d = diagnose(self.evidence(ids, [], text=text), "-m", path)
            with self.subTest(answer):
                self.assertEqual(d["verdict"], "named")
                self.assertIn(answer, named(d))

    def test_a_mislabelled_tensor_and_a_line_of_another_prompt_are_no_confident_wrong_name(self):
        model, plant = "llama-Q8_0", FAULTS["G6 no causal mask"].plant
        ids = h.small_prompt(24)
        _, records = self.log_of(model, [plant], 24)
        by = {r["value"]: r for r in records}
        _, others = self.log_of(model, [plant], 24)
        swapped = json.loads(json.dumps(records))
        for r in swapped:
            if r["value"] == "blk.1.ffn_down":
                r["stats"] = by["blk.1.attn_out"]["stats"]
        other = printed_statistics(Faulty(model_path(model), [plant], "q8").values([*reversed(ids)]))
        for r in others:
            if r["value"] == "blk.0.ffn_down":
                r["stats"] = other[r["value"]]
        for what, wrong in (("mislabelled", swapped), ("of another prompt", others)):
            _, d = diagnose(self.evidence(ids, wrong), "-m", model_path(model))
            best = d["hypotheses"][0]
            with self.subTest(what):
                self.assertTrue(d["verdict"] == "unknown" or "G6" in named(d), (d["verdict"], best["faults"]))
                self.assertLess(best["p"] if d["verdict"] == "unknown" else 0, 0.5)

    def test_six_prompts_are_chosen_and_their_answers_name_a_fault(self):
        path = model_path("llama-Q4_0")
        probe = json.loads(h.plumb("probe", "-m", path, "--json"))
        prompts = [p["ids"] for p in probe["prompts"]]
        self.assertEqual(len(prompts), 6)
        self.assertTrue(all(len(p) <= 32 for p in prompts))
        said = Faulty(path, [FAULTS["I1 gate and up exchanged"].plant], "q8").generate(prompts, probe["predict"])
        for p, (ids, _) in zip(probe["prompts"], said):
            p["answer"] = ids
        answers = self.folder / "answers.json"
        answers.write_text(json.dumps(probe))
        _, d = diagnose(answers, "-m", path)
        self.assertTrue(d["weak"])
        self.assertTrue({"I1", "I1b"} & named(d), d["hypotheses"][0])

    def test_both_bugs_of_rustorch_are_named_from_its_log(self):
        path = model_path("llama-Q6_K")
        ids = h.small_prompt(20)
        plants = [FAULTS["A1 all matrices read by columns"].plant, BYTES["B15 Q6_K in sequence"].plant]
        log = self.folder / "seed.log"
        log.write_text(rustorch_log(Faulty(path, plants[::-1], "f32").values(ids), ids))
        _, d = diagnose(log, "--rules", RULES, "-m", path)
        sets = [set(s) for s in d["hypotheses"][0]["class"]]
        self.assertEqual(d["verdict"], "named", sets)
        self.assertTrue(any(s & {"A1", "A1b"} and "B15" in s for s in sets), sets)

    def test_the_log_of_rustorch_says_what_its_lattice_proves_without_weights(self):
        status, d = diagnose(RULES.parent / "seed.log")
        said = " ".join(f["text"] for f in d["findings"])
        self.assertIn("38, 0, 37", said)
        self.assertIn(status, (0, 1, 2))


if __name__ == "__main__":
    unittest.main(verbosity=2)
