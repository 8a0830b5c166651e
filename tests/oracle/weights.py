"""Reads a GGUF file through the PyPI package `gguf`: metadata by short names, weights decoded to f32 and f64.

The package is independent of the engine under test, decoder included. A weight is remembered by the digest of its
bytes, so a file whose layers repeat is decoded once.
"""

import hashlib

import gguf
import numpy as np

KEEP_BYTES = 4 << 30  # weights in f64 are kept up to this total, the rest is decoded at each use


class Weights:
    """The tensors and metadata of one GGUF file. Shapes are NumPy's: a linear weight is [rows out, columns in]."""

    def __init__(self, path):
        self.path = str(path)
        self.reader = gguf.GGUFReader(self.path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.arch = self.reader.fields["general.architecture"].contents()
        self.used = set()
        self.digests = {}
        self.kept = {}
        self.kept_bytes = 0

    def __contains__(self, name):
        return name in self.tensors

    def meta(self, key, default=None):
        """The value of `<arch>.key`, floats as Python floats (the f32 of the file, exactly); `default` if absent."""
        field = self.reader.fields.get(f"{self.arch}.{key}")
        if field is None:
            if default is None:
                raise KeyError(f"{self.path}: no key {self.arch}.{key}")
            return default
        value = field.contents()
        return value if isinstance(value, (str, list)) else value.item() if hasattr(value, "item") else value

    def f32(self, name):
        """The decoded tensor in f32."""
        self.used.add(name)
        tensor = self.tensors[name]
        shape = tuple(int(n) for n in reversed(tensor.shape))
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        return np.asarray(value, dtype=np.float32)

    def f64(self, name):
        """The decoded tensor, promoted to f64."""
        self.used.add(name)
        if name not in self.digests:
            tensor = self.tensors[name]
            digest = hashlib.blake2b(np.ascontiguousarray(tensor.data), digest_size=16).digest()
            self.digests[name] = (int(tensor.tensor_type), tuple(tensor.shape), digest)
        key = self.digests[name]
        if key in self.kept:
            return self.kept[key]
        value = self.f32(name).astype(np.float64)
        if self.kept_bytes + value.nbytes <= KEEP_BYTES:
            self.kept[key] = value
            self.kept_bytes += value.nbytes
        return value

    def unused(self):
        """Names of tensors that nothing has asked for."""
        return sorted(set(self.tensors) - self.used)
