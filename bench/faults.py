"""Plants every fault of tests/oracle/faults.py into the oracle on real models and asks `plumb diff` for the place.

    python3 bench/faults.py [MODEL.gguf ...]       # default: SmolLM2 and gemma of the cache; the tests' Python

Three kinds of evidence: all elements (first divergence, and the operations that replay marks), rms, min and max over all
tokens with six decimals, and the same for healthy runs in every arithmetic (which must be called the same). Prints a table.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "oracle"), str(ROOT / "scripts")]

import diff_test as d  # noqa: E402
import fetch  # noqa: E402
import numpy as np  # noqa: E402
import trace_file  # noqa: E402

TEXT = "The quick brown fox jumps over the lazy dog. It was"


def tokens_of(path):
    r = d.subprocess.run([d.h.PLUMB, "tokenize", "-m", path, "-p", TEXT, "--ids"], capture_output=True, text=True)
    return json.loads(r.stdout)


def statistics_file(folder, name, values, ids):
    out = folder / f"{name}.json"
    out.write_text(json.dumps({"plumb_trace": 1, "input": {"tokens": ids}, "records": [
        {"value": value, "tokens": [0, len(ids)], "stats": stats} for value, stats in d.printed_statistics(values).items()]}))
    return out


def one(path, ids, fault, folder, count, right):
    """Adds to the counters what happened to one fault."""
    model = d.Faulty(path, [fault.plant], "q8")
    values = model.values(ids)
    if np.abs(values["logits"] - right).max() < 0.02 * np.abs(right).max():
        return
    trace = trace_file.write(folder / "t", ids, values, model.w.arch, model.heads())
    _, full = d.diff(trace, "-m", path)
    d.subprocess.run(["rm", "-rf", str(trace)])
    _, stats = d.diff(statistics_file(folder, "s", values, ids), "-m", path)
    marked = {d.kind(v) for v in full["differ"]}
    placed = full["first"] is not None and d.kind(full["first"]) in fault.kinds
    exact = marked == {k for k in fault.kinds if any(d.kind(v) == k for v in values)}
    near = stats["first"] is not None and d.neighbours(stats["first"], fault, values)
    for key, hit in (("faults", True), ("placed", placed), ("exact", exact), ("statistics", near)):
        count[key] += hit
    if not (placed and exact and near):
        print(f"  {fault.name}: first {full['first']}, marked {sorted(marked)}; from statistics {stats['first']}", flush=True)


def healthy(path, ids, folder):
    """(flags, values) over all arithmetics of the oracle."""
    flags = values_seen = 0
    for arithmetic in d.ARITHMETICS:
        model = d.Faulty(path, [], arithmetic)
        values = model.values(ids)
        trace = trace_file.write(folder / "h", ids, values, model.w.arch, model.heads())
        _, full = d.diff(trace, "-m", path)
        d.subprocess.run(["rm", "-rf", str(trace)])
        _, stats = d.diff(statistics_file(folder, "s", values, ids), "-m", path)
        over = [v["value"] for r in (full, stats) for v in r["values"] if v["score"] == "inf" or v["score"] > 1] + full["differ"]
        flags, values_seen = flags + len(over), values_seen + 3 * len(values)
        print(f"  healthy, {arithmetic}: {full['verdict']} ({full['profile']}), {stats['verdict']}, flags {over}", flush=True)
    return flags, values_seen


def main():
    models = sys.argv[1:] or [str(fetch.fetch(name)) for name in ("smollm2", "gemma")]
    for path in models:
        start, count = time.time(), dict.fromkeys(("faults", "placed", "exact", "statistics"), 0)
        ids = tokens_of(path)
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            print(Path(path).stem, f"{len(ids)} tokens", flush=True)
            flags, seen = healthy(path, ids, folder)
            right = d.Faulty(path, [], "q8")
            logits = right.values(ids)["logits"]
            for fault in d.FAULTS.values():
                if fault.fits(right):
                    one(path, ids, fault, folder, count, logits)
        print(f"{Path(path).stem}: {flags} flags in {seen} healthy values; {count}; {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
