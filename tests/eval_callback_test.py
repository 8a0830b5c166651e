"""The text that llama-eval-callback prints, made from the oracle's values: read, compared, and a fault found in it."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "oracle"),
                str(Path(__file__).resolve().parents[1] / "tools" / "record")]
import diff_test as d  # noqa: E402
import common  # noqa: E402
import eval_callback  # noqa: E402
import harness as h  # noqa: E402
import numpy as np  # noqa: E402

NAMES = {"token_embd": ("embd", "GET_ROWS"), "output_norm": ("result_norm", "MUL"), "logits": ("result_output", "MUL_MAT"),
         "attn_norm": ("attn_norm", "MUL"), "attn_q": ("Qcur", "MUL_MAT"), "attn_k": ("Kcur", "MUL_MAT"),
         "attn_v": ("Vcur", "MUL_MAT"), "q_rope": ("Qcur", "ROPE"), "k_rope": ("Kcur", "ROPE"), "attn": ("kqv_out", "RESHAPE"),
         "attn_output": ("attn_out", "MUL_MAT"), "attn_out": ("ffn_inp", "ADD"), "ffn_norm": ("ffn_norm", "MUL"),
         "ffn_gate": ("ffn_gate", "MUL_MAT"), "ffn_up": ("ffn_up", "MUL_MAT"), "ffn_act": ("ffn_swiglu", "SWIGLU"),
         "ffn_down": ("ffn_out", "MUL_MAT"), "ffn_out": ("l_out", "ADD")}


def tensor(x):
    """x [n2, n1, n0] as the printer writes it."""
    def bracket(depth, parts, n):
        shown = eval_callback.printed(n)
        lines = []
        for i, part in zip(shown, parts):
            if n > 6 and i == n - 3:
                lines.append("    " * depth + "..., ")
            lines += part
        return lines
    planes = []
    for i2 in eval_callback.printed(x.shape[0]):
        rows = []
        for i1 in eval_callback.printed(x.shape[1]):
            numbers = [f"{x[i2, i1, i]:12.4f}" for i in eval_callback.printed(x.shape[2])]
            if x.shape[2] > 6:
                numbers.insert(3, "   ...")
            rows.append([" " * 12 + "[" + ", ".join(numbers) + "  ],"])
        planes.append([" " * 8 + "["] + bracket(3, rows, x.shape[1]) + [" " * 8 + "],"])
    return ["    ["] + bracket(2, planes, x.shape[0]) + ["    ]", f"    sum = {np.float32(x.sum()):f}"]


def log_of(model, ids, values):
    lines = [f"0.00.1 I number of input tokens = {len(ids)}", *(f"0.00.2 I   {i}" for i in ids)]
    for name, value in values.items():
        raw, op = NAMES[d.kind(name)]
        if d.layer(name) is not None:
            raw += f"-{d.layer(name)}"
        n = model.heads().get(d.kind(name))
        x = value.reshape(len(ids), n, -1) if n and op == "ROPE" else value.reshape(1, len(ids), -1)
        lines.append(f"common_debug_cb_eval: {raw:>24} = (f32) {op:>10}(a{{1, 1, 1, 1}}, b{{1, 1, 1, 1}}}}) = "
                     f"{{{x.shape[2]}, {x.shape[1]}, {x.shape[0]}, 1}}")
        lines += tensor(x)
        if op == "MUL_MAT" and n:  # the reshape that follows shares the name and makes no value
            lines.append(f"common_debug_cb_eval: {raw:>24} = (f32)    RESHAPE({raw}{{1, 1, 1, 1}}, }}) = {{1, 1, 1, 1}}")
            lines += ["    [", "        [", "            [    999.0000  ],", "        ],", "    ]", "    sum = 999.0"]
    return "\n".join(lines) + "\n"


class EvalCallback(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.ids = h.small_prompt()
        self.path = d.model_path("llama-Q4_0")

    def diff(self, plants):
        model = d.Faulty(self.path, plants, "q8")
        log, out = Path(self.folder.name, "log.txt"), Path(self.folder.name, f"{len(plants)}.json")
        log.write_text(log_of(model, self.ids, model.values(self.ids)))
        h.plumb("record", "--python", sys.executable, "eval-callback", log, "-o", out)
        return d.diff(out, "-m", self.path)

    def test_a_correct_log_is_the_same_within_noise_and_all_of_it_is_read(self):
        status, found = self.diff([])
        self.assertEqual((status, found["verdict"]), (0, "same"))
        self.assertEqual(len(found["values"]), len(d.Faulty(self.path).values(self.ids)))

    def test_a_fault_is_placed_from_the_corners_alone(self):
        for fault, kinds in (("I1 gate and up exchanged", {"ffn_gate", "ffn_up"}), ("F1 other pairs are rotated", {"q_rope", "k_rope"})):
            with self.subTest(fault):
                Path(self.folder.name, "1.json").unlink(missing_ok=True)
                _, found = self.diff([d.FAULTS[fault].plant])
                self.assertIn(d.kind(found["first"]), kinds)

    def test_nothing_is_overwritten_and_a_log_without_nodes_is_refused(self):
        log, out = Path(self.folder.name, "log.txt"), Path(self.folder.name, "x.json")
        log.write_text("nothing\n")
        for expected in ("found 0 nodes", ):
            with self.assertRaisesRegex(AssertionError, expected):
                h.plumb("record", "--python", sys.executable, "eval-callback", log, "-o", out)
        with self.assertRaises(FileExistsError):
            common.write_json(log, {})


if __name__ == "__main__":
    unittest.main(verbosity=2)
