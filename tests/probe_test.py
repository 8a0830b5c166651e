"""plumb probe --gguf: the text that the file makes an engine say names the engine's bug.

Three engines are asked: ours, made wrong by --fault; ours, unmodified and with its kernels of 8-bit activations, on
poisoned copies of the file; and the NumPy oracle, which shares no code with us, with faults planted into it here.
$PLUMB_LLAMA may name an unmodified llama-completion, which is then asked as well.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "oracle")]
import faults as planted  # noqa: E402
import harness as h  # noqa: E402
import numpy as np  # noqa: E402
import numpy_model as nm  # noqa: E402

SHARE = 0.85  # of the supported faults, to be named by text alone


def kv_map(head_map):
    return planted.change_attend(lambda m, right, *a: planted.general_attention(*a, head_map=lambda i: head_map(m, i)))


def scale(factor):
    return planted.change_attend(lambda m, right, q, k, v, s, f, w: right(q, k, v, s, factor(m, f), w))


def mask(visible):
    return planted.change_attend(lambda m, right, *a: planted.general_attention(*a, mask=visible))


def residual(which, change):
    def plant(model):
        right = model.add
        model.add = lambda name, x, y: change(x, y) if planted.tail(name) == which else right(name, x, y)
    return plant


def eps(value):
    def plant(model):
        model.eps = value
    return plant


NORMS = ("attn_norm", "ffn_norm", "output_norm")
KEYS = planted.FAULTS

# Faults of the catalogue, written again for NumPy.
PLANTS = {
    "A2": KEYS["A2 square matrices read by columns"].plant,
    "A3": KEYS["A3 embedding read by columns"].plant,
    "A5b": KEYS["A5 only some matrices read by columns"].plant,
    "A15": KEYS["A15 fused gate and up split by halves of rows"].plant,
    "A14c": planted.change_weight(lambda n, w: n == "blk.1.attn_v", lambda w, m: 0 * w),
    "D1": eps(1e-3),
    "D1=1e-06": eps(1e-6),
    "D17=2": lambda m: [change(m) for change in (residual("attn_out", lambda x, y: x + 2 * y),
                                                 residual("ffn_out", lambda x, y: x + 2 * y))],
    "G2d=0.5": scale(lambda m, f: f / 2),
    "G8b=4": KEYS["G8 window of 4 tokens"].plant,
    "D3": KEYS["D3 multiplied by the root"].plant,
    "D4": KEYS["D4 LayerNorm"].plant,
    "D5": KEYS["D5 sum for mean"].plant,
    "D7": KEYS["D7 1 added to the weight"].plant,
    "D8": planted.change_norm(NORMS, lambda m, x, w: nm.rms_norm(x, w * w, m.eps)),
    "D9": planted.change_norm(NORMS, lambda m, x, w: nm.rms_norm(x, 1.0, m.eps)),
    "D10": KEYS["D10 weights of attn_norm and ffn_norm exchanged"].plant,
    "D12": KEYS["D12 last norm missing"].plant,
    "D14": KEYS["D14 residual of attention missing"].plant,
    "D14b": residual("ffn_out", lambda x, y: y.copy()),
    "D14d": residual("attn_out", lambda x, y: 2 * x + y),
    "D14e": KEYS["D14 residual added twice"].plant,
    "E6": kv_map(lambda m, i: 0),
    "E6b": kv_map(lambda m, i: m.n_head_kv - 1 - i // (m.n_head // m.n_head_kv)),
    "E8": KEYS["E8 rows of k permuted by the heads of q"].plant,
    "F1": KEYS["F1 other pairs are rotated"].plant,
    "F5": KEYS["F5 positions stretched by 2"].plant,
    "F6": planted.change_rope(magnitude=lambda r: r.magnitude * 1.26),
    "F10": KEYS["F10 position constant"].plant,
    "F11": KEYS["F11 rotated twice"].plant,
    "F12b": KEYS["F12 rotation of k missing"].plant,
    "F13": KEYS["F13 rotated the other way"].plant,
    "F19": planted.change_rope(freq=lambda r: r.freq[::-1].copy()),
    "G1": KEYS["G1 scale missing"].plant,
    "G2": KEYS["G2 scale of another width"].plant,
    "G2c": scale(lambda m, f: f / 2**0.5),
    "G3": KEYS["G3 scaled twice"].plant,
    "G4": KEYS["G4 heads share keys by h mod n_kv"].plant,
    "G6": KEYS["G6 no causal mask"].plant,
    "G7b": KEYS["G7 the next token is seen"].plant,
    "G8b": planted.change_attend(lambda m, right, q, k, v, s, f, w: right(q, k, v, s, f, 8)),
    "G12": KEYS["G12 softmax over queries"].plant,
    "I1": KEYS["I1 activation on the wrong side"].plant,
    "I2": KEYS["I2 activation of the product"].plant,
    "I3": KEYS["I3 GELU for SiLU"].plant,
    "I3c": planted.change_glu(lambda g, u: np.maximum(g, 0) * u),
    "I3d": planted.change_glu(lambda g, u: u / (1 + np.exp(-g))),
    "I3e": planted.change_glu(lambda g, u: g * u),
    "I5": KEYS["I5 no gating"].plant,
    "I5b": planted.change_glu(lambda g, u: nm.silu(u)),
    "I5c": planted.change_glu(lambda g, u: nm.silu(g) + u),
    "I5d": planted.change_glu(lambda g, u: nm.silu(g) * nm.silu(u)),
}


def first_name(text):
    """What the text says: its first word that is not "ok"."""
    return next((word for word in text.split() if word != "ok"), "ok")


class ProbeFile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.path = str(Path(cls.folder.name, "probe.gguf"))
        cls.book = json.loads(h.plumb("probe", "--gguf", cls.path, "--json", "-t", 2))
        cls.faults = {f["id"]: f for f in cls.book["faults"] if "answer" in f}

    def said(self, path, *flags):
        return h.plumb("run", "-m", path, "-p", self.book["prompt"], "-n", 4, "--temp", 0, "-t", 1, *flags)

    def judge(self, who, answers):
        """answers: id of a fault -> text."""
        wrong = {i: text.split() for i, text in answers.items() if first_name(text) != self.faults[i]["answer"]}
        print(f"{who}: {len(answers) - len(wrong)} of {len(answers)} named; not:", wrong or "none")
        self.assertGreaterEqual(len(answers) - len(wrong), SHARE * len(answers))

    def poisoned(self, ask):
        out, answers = str(Path(self.folder.name, "poisoned.gguf")), {}
        carried = {f["id"] for f in json.loads(h.plumb("faults", "list", "--json")) if f["poison"]}
        for i in self.faults:
            if i.partition("=")[0] not in carried:
                continue
            h.plumb("faults", "poison", i, "-m", self.path, "-o", out)
            text = ask(out)
            if text is not None:
                answers[i] = text
        return answers

    def test_a_right_engine_says_ok_three_times_and_stops(self):
        for isa in ("scalar", None):
            text = h.plumb("run", "-m", self.path, "-p", self.book["prompt"], "-n", 9, "--temp", 0, isa=isa)
            self.assertEqual(text.split(), ["ok"] * 3)
        self.assertEqual(self.said(self.path, "--arith", "ref64").split(), ["ok"] * 3)

    def test_at_least_a_hundred_and_fifty_faults_are_named(self):
        self.assertGreaterEqual(len(self.faults), 150)

    def test_an_engine_with_a_fault_names_it(self):
        self.judge("ours with --fault", {i: self.said(self.path, "--fault", i) for i in self.faults})

    def test_a_right_engine_names_the_fault_of_a_poisoned_file(self):
        self.judge("ours on poisoned files", self.poisoned(self.said))

    def test_an_engine_in_numpy_names_the_fault_planted_into_it(self):
        names = {}
        for f in self.faults.values():
            names[f["token"]] = f["answer"]
        ok = "ok"
        for arithmetic in ("f64", "q8"):
            answers = {}
            for i, plant in PLANTS.items():
                if i not in self.faults:
                    continue
                model = planted.Faulty(self.path, [plant], arithmetic)
                ids, _ = model.greedy([self.book["ids"]], 4)[0]
                answers[i] = " ".join(names.get(id, ok if id == self.book["ok"] else f"<{id}>") for id in ids)
            self.judge(f"NumPy in {arithmetic}", answers)
            ids, _ = planted.Faulty(self.path, (), arithmetic).greedy([self.book["ids"]], 3)[0]
            self.assertEqual(ids, [self.book["ok"]] * 3)

    @unittest.skipUnless(os.environ.get("PLUMB_LLAMA"), "$PLUMB_LLAMA names no llama-completion")
    def test_llama_cpp_names_the_fault_of_a_poisoned_file(self):
        def ask(path):
            command = [os.environ["PLUMB_LLAMA"], "-m", path, "-p", self.book["prompt"], "-n", "4", "--temp", "0", "-no-cnv",
                       "--no-warmup", "-t", "1"]
            for _ in range(20):  # it loses what it prints last when the machine is busy
                run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
                text = run.stdout
                if run.returncode != 0:
                    return None  # it refuses the file
                if "[end of text]" in text or len(text.split()) >= len(self.book["prompt"].split()) + 4:
                    break
            return text.partition(self.book["prompt"])[2].replace("[end of text]", "")
        self.assertEqual(ask(self.path).split(), ["ok"] * 3)
        self.judge("llama.cpp on poisoned files", self.poisoned(ask))


if __name__ == "__main__":
    unittest.main(verbosity=2)
