"""The recorder for llama.cpp without llama.cpp: names, rows of tensors in memory, and traces that `plumb diff` reads."""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools" / "record")]

import llamacpp  # noqa: E402
from trace_writer import TraceWriter  # noqa: E402

PLUMB = os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb")


def tensor(array, kind):
    """A ggml tensor over the elements of a view [tokens, heads, dim]."""
    t = llamacpp.Tensor(type=kind, data=array.__array_interface__["data"][0])
    t.ne[:], t.nb[:] = [*array.shape[::-1], 1], [*array.strides[::-1], 0]
    return t


class Names(unittest.TestCase):
    def test_one_name_of_llama_cpp_is_several_values_told_apart_by_the_operation(self):
        self.assertEqual(llamacpp.canonical("Qcur-3", "MUL_MAT"), "blk.3.attn_q")
        self.assertEqual(llamacpp.canonical("Qcur-3", "ROPE"), "blk.3.q_rope")
        self.assertIsNone(llamacpp.canonical("Qcur-3", "SCALE"))
        self.assertEqual(llamacpp.canonical("attn_out-0", "MUL_MAT"), "blk.0.attn_output")
        self.assertEqual(llamacpp.canonical("ffn_inp-0", "ADD"), "blk.0.attn_out")
        self.assertEqual(llamacpp.canonical("result_norm", "MUL"), "output_norm")
        self.assertIsNone(llamacpp.canonical("norm-0", "RMS_NORM"))


class Memory(unittest.TestCase):
    def test_rows_are_read_through_strides_in_both_types(self):
        whole = np.arange(2 * 3 * 8, dtype=np.float32).reshape(3, 2, 8)
        view = whole.transpose(1, 0, 2)[:, :, :5]
        np.testing.assert_array_equal(llamacpp.rows_of(tensor(view, 0)), view)
        halves = whole.astype(np.float16)
        np.testing.assert_array_equal(llamacpp.rows_of(tensor(halves, 1)), whole)
        np.testing.assert_array_equal(llamacpp.rows_of(tensor(whole[:1], 0)), whole[0])
        self.assertIsNone(llamacpp.rows_of(tensor(whole, 8)), "codes are not recorded")


class Traces(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name, "theirs.trace")

    def writer(self):
        return TraceWriter(self.path, {"name": "llama.cpp"}, {"file": "m.gguf"}, [5, 6, 7], {"name": "llama.cpp"})

    def test_a_trace_is_read_by_plumb_and_the_last_node_of_a_value_counts(self):
        recorder = llamacpp.Recorder(None, 3, {"attn_q": 2})
        rows = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
        recorder.nodes = [("blk.0.attn_q", "Qcur-0", "MUL_MAT", rows), (None, "norm-0", "RMS_NORM", rows),
                          (None, "norm-0", "RMS_NORM", rows), ("blk.0.attn_q", "Qcur-0", "ADD", rows + 1),
                          (None, "kq-0", "MUL_MAT", np.zeros((2, 3, 32), np.float32))]
        writer = self.writer()
        recorder.write(writer)
        writer.close()
        records = [json.loads(line) for line in (self.path / "records.jsonl").read_text().splitlines()]
        self.assertEqual([(r["raw"], r.get("value"), r["shape"]) for r in records],
                         [("Qcur-0", None, [3, 8]), ("norm-0", None, [3, 8]), ("norm-0#2", None, [3, 8]),
                          ("Qcur-0#2", "blk.0.attn_q", [3, 2, 4])])
        r = subprocess.run([PLUMB, "diff", self.path, self.path], capture_output=True, text=True)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("bit for bit", r.stdout)
        self.assertEqual(os.listdir(self.folder.name), ["theirs.trace"])

    def test_gemmas_unnamed_output_matrix_is_the_product_after_the_heads(self):
        recorder = llamacpp.Recorder(None, 1, {})
        recorder.nodes = [("blk.4.attn", "kqv_out-4", "RESHAPE", None)]
        self.assertEqual(recorder.unnamed("node_29", "MUL_MAT"), "blk.4.attn_output")
        self.assertIsNone(recorder.unnamed("node_29", "ADD"))

    def test_nothing_is_overwritten_and_nothing_half_written_is_left(self):
        writer = self.writer()
        writer.abandon()
        self.assertEqual(os.listdir(self.folder.name), [])
        self.path.mkdir()
        with self.assertRaises(FileExistsError):
            self.writer()

    def test_what_goes_wrong_in_the_callback_comes_back_as_an_exception(self):
        recorder = llamacpp.Recorder(None, 1, {})
        t = tensor(np.zeros((1, 1, 4), np.float32), 0)
        self.assertTrue(recorder(ctypes.addressof(t), False, None))  # no library to name the operation
        self.assertIsInstance(recorder.failure, AttributeError)


if __name__ == "__main__":
    unittest.main()
