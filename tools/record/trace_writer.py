"""Writes Plumb's trace format (docs/trace-format.md): records with all elements, for recorders in Python."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from common import module

np = module("numpy", "numpy")

SHARD_BYTES = 64 << 20
DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}


class TraceWriter:
    """A trace folder that appears under its name only when close() has written all of it.

    As a context manager it closes, or abandons what was written if an exception passes.
    """

    def __init__(self, path, engine, model, tokens, arithmetic, calls=None, gauges=()):
        """tokens: all ids, the prompt first; calls: how many of them each call had, one call if not given."""
        self.path = Path(path)
        if self.path.exists():
            raise FileExistsError(f"{path} exists; a trace is never overwritten")
        calls = list(calls or [len(tokens)])
        self.header = {"plumb_trace": 1, "engine": engine, "model": model, "arithmetic": arithmetic, "level": "full",
                       "input": {"tokens": list(tokens), "prompt": calls[0], "calls": calls}}
        if gauges:
            self.header["gauges"] = list(gauges)
        self.folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
        self.lines, self.shards, self.waiting, self.bytes = [], [], [], 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.abandon()
        else:
            self.close()

    def add(self, value, raw, op, rows, first=0, step=0, kind=None, gauges=()):
        """One value: rows is [tokens, dim] or [tokens, heads, dim], of the tokens from position `first` on.

        value: Plumb's name or None; raw: the engine's or None. rows keep their type if it is a float; kind is the
        type in the engine where that is another (BF16, which NumPy lacks, is handed over as float32).
        """
        rows = np.ascontiguousarray(rows)
        if rows.dtype.name not in DTYPES:
            rows = rows.astype(np.float32)
        dtype = DTYPES[rows.dtype.name]
        record = {"value": value, "raw": raw, "op": op, "step": step, "tokens": [first, len(rows)],
                  "shape": list(rows.shape), "type": kind or dtype, "shard": len(self.shards) + 1,
                  "tensor": f"{len(self.lines)} {raw or value}"}
        record = {key: x for key, x in record.items() if x is not None}
        if gauges:
            record["gauges"] = list(gauges)
        self.lines.append(json.dumps(record))
        self.waiting.append((record["tensor"], dtype, rows))
        self.bytes += rows.nbytes
        if self.bytes >= SHARD_BYTES:
            self._write_shard()

    def _write_shard(self):
        header, at = {}, 0
        for name, dtype, rows in self.waiting:
            header[name] = {"dtype": dtype, "shape": list(rows.shape), "data_offsets": [at, at + rows.nbytes]}
            at += rows.nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        name = f"values-{len(self.shards) + 1:05}.safetensors"
        with open(self.folder / name, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for _, _, rows in self.waiting:
                out.write(rows.tobytes())
            size = out.tell()
        self.shards.append({"file": name, "bytes": size})
        self.waiting, self.bytes = [], 0

    def close(self):
        if self.waiting:
            self._write_shard()
        (self.folder / "records.jsonl").write_text("".join(line + "\n" for line in self.lines))
        self.header.update(records=len(self.lines), shards=self.shards)
        (self.folder / "trace.json").write_text(json.dumps(self.header, indent=1))
        self.folder.chmod(0o755)
        os.rename(self.folder, self.path)

    def abandon(self):
        shutil.rmtree(self.folder, ignore_errors=True)
