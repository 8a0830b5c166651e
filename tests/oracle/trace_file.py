"""Traces of the NumPy oracle, in F64, through the writer of the recorders."""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools" / "record"))
from trace_writer import TraceWriter  # noqa: E402


def write(path, ids, values, arch, per_head=()):
    """values: {name: [T, ...]} in the order of the computation; per_head: {name: heads}."""
    arithmetic = {"name": "f64", "weights": "decoded", "activations": "f64"}
    with TraceWriter(path, {"name": "numpy oracle"}, {"arch": arch}, [int(i) for i in ids], arithmetic) as writer:
        for name, value in values.items():
            rows = np.asarray(value, np.float64)
            heads = dict(per_head).get(name.rsplit(".", 1)[-1])
            if heads and rows.ndim != 3:
                rows = rows.reshape(len(rows), heads, -1)
            writer.add(name, None, None, rows if rows.ndim == 3 else rows.reshape(len(rows), -1))
    return Path(path)
