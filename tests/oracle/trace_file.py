"""Traces of the NumPy oracle: docs/trace-format.md, written without the engine."""

import json
import struct
from pathlib import Path

import numpy as np


def write(path, ids, values, arch, per_head=()):
    """values: {name: [T, ...]} in the order of the computation; per_head: {name: heads}. F64, one shard."""
    path = Path(path)
    path.mkdir()
    index, records, blobs, at = {}, [], [], 0
    for name, value in values.items():
        value = np.ascontiguousarray(value, dtype=np.float64)
        shape = list(value.reshape(len(value), -1).shape) if value.ndim != 3 else list(value.shape)
        heads = dict(per_head).get(name.rsplit(".", 1)[-1])
        if heads and len(shape) == 2:
            shape = [shape[0], heads, shape[1] // heads]
        blob = value.tobytes()
        index[name] = {"dtype": "F64", "shape": shape, "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
        records.append({"value": name, "step": 0, "tokens": [0, shape[0]], "shape": shape, "type": "F64",
                        "shard": 1, "tensor": name})
    head = json.dumps(index).encode()
    shard = struct.pack("<Q", len(head)) + head + b"".join(blobs)
    (path / "values-00001.safetensors").write_bytes(shard)
    (path / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    header = {"plumb_trace": 1, "engine": {"name": "numpy oracle"}, "model": {"arch": arch},
              "input": {"tokens": list(ids), "prompt": len(ids), "calls": [len(ids)]},
              "arithmetic": {"name": "f64", "weights": "decoded", "activations": "f64"}, "level": "full",
              "records": len(records), "shards": [{"file": "values-00001.safetensors", "bytes": len(shard)}]}
    (path / "trace.json").write_text(json.dumps(header))
    return path
