"""What a level of evidence shows of a run, as a file in Plumb's trace format, and whether it shows the fault at all.

A run is a list of Values: name, position of the first row, call, rows. Levels: A all elements; C rms, minimum and maximum of all
values; Cp ("C'") those of four lines in five layers; D ten logits; E 32 greedy ids of one prompt; E6 16 ids of six prompts.
"""

import json
import math
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools" / "record"))
from trace_writer import TraceWriter  # noqa: E402

LEVELS = ("A", "C", "Cp", "D", "E", "E6")
SHOWN = {"A": "full trace", "C": "statistics of all values", "Cp": "a log of 60 numbers", "D": "ten logits",
         "E": "32 greedy tokens", "E6": "six prompts, 16 tokens"}
Value = namedtuple("Value", "name first step rows")


def kind(name):
    return name.rsplit(".", 1)[-1]


def printed(x, decimals=6):
    """As C's printf writes it."""
    return f"{x:.{decimals}f}" if math.isfinite(x) else ("nan" if math.isnan(x) else "inf" if x > 0 else "-inf")


def statistics(rows):
    with np.errstate(all="ignore"):
        return [printed(x) for x in (math.sqrt(np.mean(np.square(rows, dtype=np.float64))), np.min(rows), np.max(rows))]


def log_lines(run):
    """Names of the values that a log of four lines in five layers prints; of six layers or fewer, in all."""
    layers = sorted({int(v.name.split(".")[1]) for v in run if v.name.startswith("blk.")})
    if len(layers) > 6:
        layers = [layers[round(i * (len(layers) - 1) / 4)] for i in range(5)]
    return {f"blk.{layer}.{line}" for layer in layers for line in ("attn_norm", "attn_out", "ffn_down", "ffn_out")}


def header(ids, text, calls=None, prompt=None):
    given = {"tokens": [int(i) for i in ids]}
    if calls or prompt:
        given |= {"prompt": prompt or calls[0]} | ({"calls": calls} if calls else {})
    if text is not None:
        given["text"] = text
    return {"plumb_trace": 1, "engine": {"name": "foreign"}, "input": given}


def write(path, top, records):
    part = Path(f"{path}.part")
    part.write_text(json.dumps(top | {"records": records}))
    part.rename(path)


def write_statistics(path, run, ids, text, calls=None, only=None):
    records = [{"value": v.name, "step": v.step, "tokens": [v.first, len(v.rows)],
                "stats": dict(zip(("rms", "min", "max"), statistics(v.rows)))} for v in run if only is None or v.name in only]
    write(path, header(ids, text, calls), records)


def last_logits(run):
    return np.asarray([v for v in run if v.name == "logits" and v.step == 0][-1].rows[-1], np.float64)


def top(y, n=10):
    return np.argsort(-np.where(np.isfinite(y), y, -np.inf), kind="stable")[:n]


def write_logits(path, run, ids, text):
    y = last_logits(run)
    write(path, header(ids, text), [{"value": "logits", "scope": "last", "last": True, "step": 0,
                                     "samples": [[int(i), printed(y[i], 4)] for i in top(y)]}])


def write_generated(path, ids, generated, text):
    write(path, header([*ids, *generated], text, prompt=len(ids)), [])


def write_trace(path, run, ids, text=None, calls=None, heads=None, arch=None):
    """All elements as F32, as an engine would write them; logits of the last row of each call only."""
    arithmetic = {"name": "foreign"}
    with TraceWriter(path, {"name": "foreign"}, {"arch": arch}, [int(i) for i in ids], arithmetic, calls) as writer:
        if text is not None:
            writer.header["input"]["text"] = text
        for v in run:
            rows, first = np.asarray(v.rows, np.float32).reshape(len(v.rows), -1), v.first
            h = (heads or {}).get(kind(v.name))
            writer.add(v.name, None, None, rows.reshape(len(rows), h, -1) if h else rows, first=first, step=v.step)


def read_trace(folder):
    """(header, Values with a name) of a trace."""
    folder = Path(folder)
    head, shards = json.loads((folder / "trace.json").read_text()), {}
    kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    for n, shard in enumerate(head["shards"], 1):
        raw = np.memmap(folder / shard["file"], np.uint8, "r")
        size = int.from_bytes(raw[:8].tobytes(), "little")
        for name, entry in json.loads(raw[8:8 + size].tobytes()).items():
            if name != "__metadata__" and entry["dtype"] in kinds:
                a, b = entry["data_offsets"]
                shards[n, name] = raw[8 + size + a:8 + size + b].view(kinds[entry["dtype"]]).reshape(entry["shape"])
    run = []
    for line in (folder / "records.jsonl").read_text().splitlines():
        r = json.loads(line)
        if r.get("value") and (r.get("shard"), r.get("tensor")) in shards:
            rows = shards[r["shard"], r["tensor"]]
            run.append(Value(r["value"], (r.get("tokens") or [0])[0], r.get("step", 0), rows.reshape(len(rows), -1)))
    return head, run


# Whether a level shows a fault: against the healthy run in the same arithmetic, in units of that arithmetic's own noise.

def table(run, only):
    return {(v.name, v.step, i): float(x) for v in run if only is None or v.name in only for i, x in enumerate(statistics(v.rows))}


def shows_statistics(run, healthy, exact, only=None):
    theirs, ours, best = table(run, only), table(healthy, only), table(exact, only)
    if set(theirs) != set(ours):
        return True
    size = {(name, step): abs(x) + 1e-6 for (name, step, i), x in ours.items() if i == 0}
    noise, z = {}, []
    for key in ours:
        noise.setdefault((kind(key[0]), key[2]), []).append((ours[key] - best[key]) / size[key[:2]])
    noise = {k: math.sqrt(np.mean(np.square(v))) for k, v in noise.items()}
    for key in ours:
        unit = noise[kind(key[0]), key[2]] + 1e-6 / size[key[:2]]
        z.append((theirs[key] - ours[key]) / size[key[:2]] / unit)
    z = np.asarray(z)
    return bool(not np.isfinite(z).all() or np.mean(z * z) > 2 or np.abs(z).max() > 6)


def shows_elements(run, healthy, exact):
    theirs, ours, best = ({(v.name, v.step): v.rows for v in r} for r in (run, healthy, exact))
    if set(theirs) != set(ours) or any(theirs[k].shape != ours[k].shape for k in ours):
        return True

    def relative(a, b):
        with np.errstate(all="ignore"):
            return float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-30))
    noise = {}
    for key, rows in ours.items():
        noise.setdefault(kind(key[0]), []).append(relative(rows, best[key]))
    ratio = [relative(theirs[key], rows) / (np.mean(noise[kind(key[0])]) + 1e-7) for key, rows in ours.items()]
    return bool(not np.isfinite(ratio).all() or max(ratio) > 3)


def shows_logits(run, healthy, exact):
    theirs, ours, best = (last_logits(r) for r in (run, healthy, exact))
    if not np.isfinite(theirs).all():
        return True
    at = np.union1d(top(theirs), top(ours))
    return bool(np.sqrt(np.mean((theirs - ours)[at]**2)) > 2 * np.sqrt(np.mean((ours - best)[at]**2)) + 1e-4)
