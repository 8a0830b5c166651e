"""plumb_tap.h: an engine in C and one in Python, through ctypes, write traces that plumb diff calls the same."""

import ctypes
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "oracle")]
import diff_test as d  # noqa: E402
import harness as h  # noqa: E402
import numpy as np  # noqa: E402

TAP = h.ROOT / "tools" / "tap"
CC = os.environ.get("CC", "gcc")
TYPES = {"f32": (0, np.float32), "f16": (1, np.float16), "f64": (3, np.float64)}


def write_weights(model, path):
    parts = [model.w.f64("token_embd.weight")]
    for layer in range(model.n_layer):
        for name in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"):
            parts.append(model.w.f64(f"blk.{layer}.{name}.weight"))
    parts += [model.w.f64("output_norm.weight"), model.w.f64(model.head + ".weight")]
    n_ff, n_vocab = model.w.f64("blk.0.ffn_gate.weight").shape[0], parts[0].shape[0]
    head = struct.pack("<7i2f", model.dim, model.n_layer, model.n_head, model.n_head_kv, model.head_dim, n_ff, n_vocab,
                       model.eps, model.w.meta("rope.freq_base", 10000.0))
    path.write_bytes(head + b"".join(p.astype(np.float32).tobytes() for p in parts))


def library(folder):
    """The header as a shared library: what any language with a foreign function interface can load."""
    source, out = Path(folder, "tap.c"), Path(folder, "tap.so")
    source.write_text('#define _DEFAULT_SOURCE\n#define PLUMB_TAP_IMPLEMENTATION\n#include "plumb_tap.h"\n')
    subprocess.run([CC, "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{TAP}", source, "-o", out], check=True)
    tap = ctypes.CDLL(str(out))
    tap.plumb_tap_begin.restype = ctypes.c_void_p
    tap.plumb_tap_begin.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    tap.plumb_tap_call.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    tap.plumb_tap_gauge.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    tap.plumb_tap_rows.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int] + [ctypes.c_int64] * 3
    tap.plumb_tap_last.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int] + [ctypes.c_int64] * 2
    tap.plumb_tap_end.argtypes = [ctypes.c_void_p]
    tap.plumb_tap_error.restype = ctypes.c_char_p
    return tap


class Tap(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = d.model_path("llama-F32")
        self.ids = h.small_prompt()

    def at(self, name):
        return Path(self.folder.name, name)

    def test_the_example_in_c_is_the_same_as_ours_and_its_bug_is_found(self):
        program, weights = self.at("example"), self.at("weights")
        subprocess.run([CC, "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", TAP / "example.c", "-o", program, "-lm"], check=True)
        write_weights(d.Faulty(self.path), weights)
        ids = list(map(str, self.ids))
        subprocess.run([program, weights, self.at("right"), *ids], check=True)
        status, found = d.diff(self.at("right"), "-m", self.path)
        self.assertEqual((status, found["verdict"], found["differ"]), (0, "same", []))
        self.assertEqual(len(found["replay"]), len(found["values"]))
        data = bytearray(weights.read_bytes())
        data[32:36] = struct.pack("<f", 500000.0)  # the engine takes another rope base
        weights.write_bytes(data)
        subprocess.run([program, weights, self.at("wrong"), *ids], check=True)
        status, found = d.diff(self.at("wrong"), "-m", self.path)
        self.assertEqual({d.kind(v) for v in found["differ"]}, {"q_rope", "k_rope"})
        again = subprocess.run([program, weights, self.at("wrong"), *ids], capture_output=True, text=True)
        self.assertEqual(again.returncode, 1)
        self.assertIn("File exists", again.stderr)

    def test_python_by_ctypes_writes_calls_types_and_gauges(self):
        tap = library(self.folder.name)
        model = d.Faulty(self.path)
        values, heads = model.values(self.ids), model.heads()
        ids = (ctypes.c_int32 * len(self.ids))(*self.ids)
        for kind, (code, dtype) in TYPES.items():
            t = tap.plumb_tap_begin(str(self.at(kind)).encode(), b"python", b"llama", ids, len(ids), 20)
            for first, last in ((0, 20), (20, 24)):
                tap.plumb_tap_call(t, last - first)
                for name, value in values.items():
                    rows = np.ascontiguousarray(value[first:last], dtype)
                    n = heads.get(d.kind(name), 0)
                    tap.plumb_tap_rows(t, name.encode(), rows.ctypes.data, code, len(rows), n, rows.shape[1] // max(n, 1))
            self.assertEqual(tap.plumb_tap_end(t), 0, tap.plumb_tap_error())
            status, found = d.diff(self.at(kind), "-m", self.path)
            self.assertEqual((status, found["verdict"], found["tokens"]), (0, "same", 24), kind)

    def test_what_goes_wrong_leaves_nothing_behind(self):
        tap = library(self.folder.name)
        before = sorted(os.listdir(self.folder.name))
        ids = (ctypes.c_int32 * 1)(1)
        t = tap.plumb_tap_begin(str(self.at("x")).encode(), b"e", b"llama", ids, 1, 1)
        row = np.zeros(4, np.float32)
        tap.plumb_tap_rows(t, b"logits", row.ctypes.data, 0, 1, 0, 4)  # before any call
        self.assertEqual(tap.plumb_tap_end(t), -1)
        self.assertIn(b"plumb_tap_call must come first", tap.plumb_tap_error())
        self.assertEqual(sorted(os.listdir(self.folder.name)), before)
        t = tap.plumb_tap_begin(str(self.at("no/such/folder")).encode(), b"e", b"llama", ids, 1, 1)
        tap.plumb_tap_call(t, 1)
        self.assertEqual(tap.plumb_tap_end(t), -1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
