"""The number formats in which engines keep what they compute, as roundings of f64."""

import numpy as np


def bf16(x):
    bits = np.asarray(x, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def f16(x):
    return np.clip(x, -65504, 65504).astype(np.float16).astype(np.float64)


def integer_blocks(x, size=32, top=127):
    """Blocks of `size` as integers up to `top` with an f16 scale; 32 and 127 are llama.cpp's Q8_0 activations."""
    pad = -x.shape[-1] % size
    y = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)]).reshape(*x.shape[:-1], -1, size)
    d = np.float16(np.abs(y).max(-1, keepdims=True) / top).astype(np.float64)
    q = np.where(d > 0, np.rint(y / np.where(d > 0, d, 1)), 0).clip(-top, top) * d
    return q.reshape(*x.shape[:-1], -1)[..., :x.shape[-1]]


def int8_blocks(x):
    return integer_blocks(x)


def as_it_is(x):
    return x


# Of every value that is written down, of what matrices multiply, and of what the cache keeps.
ARITHMETICS = {"f64": None, "f32": lambda x: x.astype(np.float32), "bf16": bf16, "q8": lambda x: x.astype(np.float32),
               "f16": lambda x: np.clip(x, -65504, 65504).astype(np.float16)}
ACTIVATIONS = dict.fromkeys(ARITHMETICS, as_it_is) | {"q8": int8_blocks}
CACHES = dict.fromkeys(ARITHMETICS, as_it_is) | {"bf16": bf16, "f16": f16, "q8": f16}
