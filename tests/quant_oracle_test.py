#!/usr/bin/env python3
"""Every decoder equals, bit for bit, the PyPI packages `gguf` and `libgguf`, which share nothing with ours.

Usage: quant_oracle_test.py path/to/plumb_decode [FORMAT...]

Per format: 2,048 random blocks, 2,048 with adversarial values in every f16 field (zeros, subnormals, extremes,
infinities, NaN), and a sweep in which each byte
position takes all 256 values. NaN equals NaN; -0 and 0 differ. F16, BF16, F32 and F64 are compared with NumPy, which
is what `gguf` uses; the first two over all their 65,536 values.
"""
import subprocess
import sys
import unittest
import warnings

import gguf
import libgguf
import numpy as np

TOOL = sys.argv[1] if len(sys.argv) > 1 else "plumb_decode"
ONLY = sys.argv[2:]

# Offsets of the f16 fields in a block. IQ1_M keeps its scale in the top nibbles of four words; MXFP4 has one byte.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ3_XXS": [0], "IQ1_S": [0],
    "IQ4_NL": [0], "IQ3_S": [0], "IQ2_S": [0], "IQ4_XS": [0], "IQ1_M": [], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [],
}
NASTY = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x3C00, 0xBC00, 0x3555, 0x7BFF,
                  0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFE01, 0x7FFF], dtype=np.uint16)


def decode(name, blocks):
    """The weights according to plumb."""
    done = subprocess.run([TOOL, name], input=blocks.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, dtype=np.float32)


def set_halves(name, blocks, rng):
    """Puts adversarial values into every f16 field."""
    n = len(blocks)
    for offset in HALVES[name]:
        blocks[:, offset:offset + 2] = rng.choice(NASTY, n).astype("<u2").view(np.uint8).reshape(n, 2)
    if name == "IQ1_M":
        d = rng.choice(NASTY, n)
        for j in range(4):
            high = blocks[:, 48 + 2 * j + 1]
            blocks[:, 48 + 2 * j + 1] = (high & 0x0F) | ((d >> 4 * j & 15) << 4).astype(np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = rng.choice(np.array([0, 1, 2, 3, 127, 128, 253, 254, 255], dtype=np.uint8), n)
    return blocks


def set_finite(name, blocks):
    """Puts the scale 1 into every f16 field, so that no sweep hides behind a NaN."""
    for offset in HALVES[name]:
        blocks[:, offset:offset + 2] = [0x00, 0x3C]
    if name == "IQ1_M":
        blocks[:, 49:56:2] &= 0x0F
        blocks[:, [53, 55]] |= np.array([0xC0, 0x30], dtype=np.uint8)
    return blocks


def blocks_of(name, size):
    rng = np.random.default_rng(7)
    plain = rng.integers(0, 256, (2048, size), dtype=np.uint8)
    nasty = set_halves(name, rng.integers(0, 256, (2048, size), dtype=np.uint8), rng)
    sweep = set_finite(name, rng.integers(0, 256, (256, size), dtype=np.uint8))
    sweep = np.tile(sweep, (size, 1)).reshape(size, 256, size)
    for position in range(size):  # block [position, value]: byte `position` is `value`
        sweep[position, :, position] = np.arange(256)
    return np.concatenate([plain, nasty, sweep.reshape(-1, size)])


class QuantOracleTest(unittest.TestCase):
    def assert_same_bits(self, ours, theirs, what):
        self.assertEqual(ours.size, theirs.size, what)
        a, b = ours.view(np.uint32), np.ascontiguousarray(theirs, dtype=np.float32).ravel().view(np.uint32)
        wrong = (a != b) & ~(np.isnan(ours) & np.isnan(b.view(np.float32)))
        if wrong.any():
            i = int(wrong.argmax())
            self.fail(f"{what}: {int(wrong.sum())} weights differ, first {i}: {ours[i]!r}, expected "
                      f"{b.view(np.float32)[i]!r}")

    def test_quantised_formats_equal_gguf_and_libgguf(self):
        for name in ONLY or HALVES:
            if name not in HALVES:
                continue
            with self.subTest(name):
                kind = gguf.GGMLQuantizationType[name]
                weights, size = gguf.GGML_QUANT_SIZES[kind]
                blocks = blocks_of(name, size)
                ours = decode(name, blocks)
                self.assertGreater(np.isfinite(ours).mean(), 0.5, "most of the sweep must be finite")
                self.assert_same_bits(ours, gguf.quants.dequantize(blocks, kind), f"{name} against gguf")
                theirs = libgguf.dequantize_rows(blocks, int(kind), weights)
                self.assert_same_bits(ours, theirs, f"{name} against libgguf")

    def test_every_half_scale_equals_gguf_and_libgguf(self):
        """All 65,536 patterns of each f16 field of the 32-weight formats."""
        patterns = np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 2)
        for name in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"]:
            kind = gguf.GGMLQuantizationType[name]
            weights, size = gguf.GGML_QUANT_SIZES[kind]
            for offset in HALVES[name]:
                blocks = np.random.default_rng(11).integers(0, 256, (65536, size), dtype=np.uint8)
                blocks[:, offset:offset + 2] = patterns
                ours = decode(name, blocks)
                self.assert_same_bits(ours, gguf.quants.dequantize(blocks, kind), f"{name} against gguf")
                self.assert_same_bits(ours, libgguf.dequantize_rows(blocks, int(kind), weights),
                                      f"{name} against libgguf")

    def test_floats_equal_numpy(self):
        rng = np.random.default_rng(13)
        all16 = np.arange(65536, dtype="<u2")
        self.assert_same_bits(decode("F16", all16), all16.view(np.float16).astype(np.float32), "F16")
        kind = gguf.GGMLQuantizationType.BF16
        self.assert_same_bits(decode("BF16", all16), gguf.quants.dequantize(all16.view(np.uint8), kind), "BF16")
        bits32 = rng.integers(0, 1 << 32, 65536, dtype=np.uint32)
        self.assert_same_bits(decode("F32", bits32), bits32.view(np.float32), "F32")
        bits64 = rng.integers(0, 1 << 63, 65536, dtype=np.uint64) << np.uint64(1)
        near = rng.standard_normal(65536) * 2.0 ** rng.integers(-155, 130, 65536)  # around both ends of f32
        for values in (bits64.view(np.float64), near, np.array([2.0**-150, 1.5 * 2.0**-149, 2.0**128 - 2.0**103, -0.0])):
            self.assert_same_bits(decode("F64", values), values.astype(np.float32), "F64")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    unittest.main(argv=sys.argv[:1])
