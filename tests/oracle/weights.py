"""Reads a GGUF file through the PyPI package `gguf`: metadata by short names, weights decoded to f32.

The package is independent of the engine under test, decoder included. A decoded weight is remembered by the digest
of its bytes, so a file whose layers repeat is decoded once.
"""

import hashlib

import gguf
import numpy as np

KEEP_BYTES = 6 << 30  # decoded weights above this total are dropped, oldest first
SMALL_PARAMETERS = 400_000_000  # a model up to this size also keeps its weights in f64: 3 GB


class Weights:
    """The tensors and metadata of one GGUF file. Shapes are NumPy's: a linear weight is [rows out, columns in]."""

    def __init__(self, path):
        self.path = str(path)
        self.reader = gguf.GGUFReader(self.path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.arch = self.reader.fields["general.architecture"].contents()
        self.used = set()
        self.decoded = {}
        self.digests = {}
        self.promoted = {}
        self.small = sum(int(t.n_elements) for t in self.reader.tensors) <= SMALL_PARAMETERS

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
        if name not in self.digests:
            data = np.ascontiguousarray(tensor.data)
            self.digests[name] = (int(tensor.tensor_type), shape, hashlib.blake2b(data, digest_size=16).digest())
        key = self.digests[name]
        if key not in self.decoded:
            value = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
            self.decoded[key] = np.asarray(value, dtype=np.float32)
            while len(self.decoded) > 1 and sum(w.nbytes for w in self.decoded.values()) > KEEP_BYTES:
                del self.decoded[next(iter(self.decoded))]
        return self.decoded[key]

    def f64(self, name):
        """The decoded tensor, promoted to f64."""
        if not self.small:
            return self.f32(name).astype(np.float64)
        if name not in self.promoted:
            self.promoted[name] = self.f32(name).astype(np.float64)
            self.decoded.pop(self.digests[name], None)
        return self.promoted[name]

    def rows(self, name, ids):
        """Some rows of a tensor in f64: [len(ids), columns]."""
        weight = self.f64(name) if self.small else self.f32(name)
        return weight[ids].astype(np.float64)

    def unused(self):
        """Names of tensors that nothing has asked for."""
        return sorted(set(self.tensors) - self.used)
