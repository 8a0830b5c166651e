"""The number formats in which engines keep what they compute, as roundings of f64."""

import numpy as np


def bf16(x):
    bits = np.asarray(x, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def int8_blocks(x):
    """Blocks of 32 as int8 with an f16 scale, as llama.cpp's Q8_0 activations."""
    pad = -x.shape[-1] % 32
    y = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)]).reshape(*x.shape[:-1], -1, 32)
    d = np.float16(np.abs(y).max(-1, keepdims=True) / 127).astype(np.float64)
    q = np.where(d > 0, np.rint(y / np.where(d > 0, d, 1)), 0).clip(-127, 127) * d
    return q.reshape(*x.shape[:-1], -1)[..., :x.shape[-1]]


ARITHMETICS = {"f64": None, "f32": lambda x: x.astype(np.float32), "bf16": bf16, "q8": lambda x: x.astype(np.float32),
               "f16": lambda x: np.clip(x, -65504, 65504).astype(np.float16)}
