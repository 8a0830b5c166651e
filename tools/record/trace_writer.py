"""Writes Plumb's trace format (docs/trace-format.md): records with all elements, for recorders in Python."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

SHARD_BYTES = 64 << 20


class TraceWriter:
    """A trace folder that appears under its name only when close() has written all of it."""

    def __init__(self, path, engine, model, tokens, arithmetic):
        self.path = Path(path)
        if self.path.exists():
            raise FileExistsError(f"{path} exists; a trace is never overwritten")
        self.header = {"plumb_trace": 1, "engine": engine, "model": model, "arithmetic": arithmetic, "level": "full",
                       "input": {"tokens": tokens, "prompt": len(tokens), "calls": [len(tokens)]}}
        self.folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
        self.lines, self.shards, self.waiting, self.bytes = [], [], [], 0

    def add(self, value, raw, op, rows, first=0):
        """One value: rows is [tokens, dim] or [tokens, heads, dim], of the tokens from position `first` on."""
        rows = np.ascontiguousarray(rows, np.float32)
        record = {"raw": raw, "op": op, "tokens": [first, len(rows)], "shape": list(rows.shape),
                  "shard": len(self.shards) + 1, "tensor": f"{len(self.lines)} {raw}"}
        if value:
            record["value"] = value
        self.lines.append(json.dumps(record))
        self.waiting.append((record["tensor"], rows))
        self.bytes += rows.nbytes
        if self.bytes >= SHARD_BYTES:
            self._write_shard()

    def _write_shard(self):
        header, at = {}, 0
        for name, rows in self.waiting:
            header[name] = {"dtype": "F32", "shape": list(rows.shape), "data_offsets": [at, at + rows.nbytes]}
            at += rows.nbytes
        text = json.dumps(header).encode()
        name = f"values-{len(self.shards) + 1:05}.safetensors"
        with open(self.folder / name, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for _, rows in self.waiting:
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
