"""Pairs of correct engines and arithmetics: `plumb diff` must call each the same, with at most one flag per 1,000 tensors.

    python3 bench/benign.py [--quick]      # the tests' Python, with mlx-lm and llama-cpp-python

Ours against ours in other arithmetic, llama.cpp in several settings, mlx-lm in f32 and bf16, and a quantised file against its
own decoded copy; on SmolLM2, gemma and small random qwen2, qwen3, llama and gemma3 models. Each trace is judged twice: with all its
elements, and by rms, min and max over all tokens with six decimals. Prints a table.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "oracle"), str(ROOT / "scripts")]

import diff_test as d  # noqa: E402
import fetch  # noqa: E402
import numpy as np  # noqa: E402

TEXT = "The quick brown fox jumps over the lazy dog. It was"
OURS = {"fast": ["trace"], "fast, 8 bits": ["trace", "--act", "8"], "fast, 16 bits": ["trace", "--act", "16"],
        "fast, f32 cache": ["trace", "-ctk", "f32", "-ctv", "f32"], "f32": ["trace", "--arith", "ref32"],
        "fast, one token per call": ["trace", "-ub", "1"]}
LLAMA_CPP = {"llama.cpp": [], "llama.cpp -fa off": ["-fa", "off"], "llama.cpp -t 1": ["-t", "1"],
             "llama.cpp -ub 1": ["-ub", "1"], "llama.cpp -ub 512": ["-ub", "512"], "llama.cpp, 4 steps": ["-n", "4"]}
MLX = {"mlx f32": ["--dtype", "f32"], "mlx bf16": ["--dtype", "bf16"]}


def command(name):
    """The commands of a pair by name; {model}, {ids} are filled in."""
    if name in OURS:
        return [d.h.PLUMB, *OURS[name]]
    engine, flags = ("llamacpp", LLAMA_CPP[name]) if name in LLAMA_CPP else ("mlx", MLX[name])
    return [d.h.PLUMB, "record", "--python", sys.executable, engine, *flags]


def tensors_of(folder):
    """{name of a tensor: its elements in f64} of all shards of a trace."""
    out = {}
    for shard in sorted(folder.glob("*.safetensors")):
        data = shard.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, t in json.loads(data[8:start]).items():
            kind = {"F32": np.float32, "F16": np.float16, "F64": np.float64}[t["dtype"]]
            out[name] = np.frombuffer(data, kind, (t["data_offsets"][1] - t["data_offsets"][0]) // kind().itemsize,
                                      start + t["data_offsets"][0]).astype(np.float64)
    return out


def printed(trace, out):
    """Writes what a log would have of a trace: statistics of each value over all of its tokens."""
    header, tensors, values = json.loads((trace / "trace.json").read_text()), tensors_of(trace), {}
    for line in (trace / "records.jsonl").read_text().splitlines():
        r = json.loads(line)
        if "value" in r and ".attn." not in r["value"]:
            values.setdefault(r["value"], []).append((r["tokens"], tensors[r["tensor"]]))
    records = []
    for value, parts in values.items():
        first, count = min(t[0] for t, _ in parts), sum(t[1] for t, _ in parts)
        stats = d.printed_statistics({value: np.concatenate([x for _, x in parts])})[value]
        records.append({"value": value, "tokens": [first, count], "stats": stats})
    out.write_text(json.dumps({"plumb_trace": 1, "input": header["input"], "records": records}))
    return out


def over(found):
    return [v["value"] for v in found["values"] if v["score"] == "inf" or v["score"] > 1]


def pair(name, theirs_model, model, ids, folder):
    """(verdict, flags, tensors, flags of statistics, values there) of one pair."""
    out = folder / "t"
    made = subprocess.run([*command(name), "-m", theirs_model, "--tokens", ",".join(map(str, ids)), "-o", out],
                          capture_output=True, text=True)
    if made.returncode != 0:
        return f"FAILED: {made.stderr.strip().splitlines()[-1:]}", [], 0, [], 0
    _, found = d.diff(out, "-m", model)
    _, summary = d.diff(printed(out, folder / "t.json"), "-m", model)
    subprocess.run(["rm", "-rf", str(out)])
    flags, operations = over(found), found["replay"] or []
    by_design = {o["habit"] for o in operations if "habit" in o}
    text = f"{found['verdict']} ({found['profile']})" + "".join(f", by design: {h}" for h in by_design)
    if by_design and found["verdict"] == "same":
        flags = []  # they follow from what is done otherwise by design: every operation agrees on its own inputs
    return text, flags + found["differ"], len(found["values"]) + len(operations), over(summary), len(summary["values"])


def models(quick):
    wanted = {"qwen2-Q8_0", "qwen3-F32", "qwen3-Q8_0", "llama-Q4_0", "gemma3-Q8_0", "qwen2-F32"}
    for name in [] if quick else ("smollm2", "gemma"):
        path = str(fetch.fetch(name))
        r = subprocess.run([d.h.PLUMB, "tokenize", "-m", path, "-p", TEXT, "--ids"], capture_output=True, text=True)
        yield name, path, d.json.loads(r.stdout), [*OURS, *LLAMA_CPP, *MLX]
    for case, path in d.h.small_models():
        if case.name in wanted:
            yield case.name, path, d.h.small_prompt(), ["fast", "fast, 8 bits", "f32", *LLAMA_CPP, *MLX]


def main():
    pairs = flagged = tensors = flagged_stats = stats = 0
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for name, path, ids, kinds in models("--quick" in sys.argv):
            decoded = folder / "decoded.gguf"
            subprocess.run([d.h.PLUMB, "quantize", "--allow-requantize", path, decoded, "F32"], capture_output=True)
            for kind in [*kinds, "its decoded file"]:
                own = kind == "its decoded file"
                text, flags, seen, of_stats, more = pair("fast" if own else kind, decoded if own else path, path, ids, folder)
                if own and not decoded.exists():
                    continue
                pairs, flagged, tensors = pairs + 1, flagged + len(flags), tensors + seen
                flagged_stats, stats = flagged_stats + len(of_stats), stats + more
                print(f"{name:12} {kind:26} {text}; {len(flags)} flags of {seen} {flags[:6] if flags else ''}; "
                      f"from statistics {len(of_stats)} of {more} {of_stats[:6] if of_stats else ''}", flush=True)
            decoded.unlink(missing_ok=True)
    print(f"{pairs} pairs, {flagged} flags of {tensors} tensors: {1000 * flagged / max(1, tensors):.2f} per 1,000; "
          f"from statistics {flagged_stats} of {stats}")


if __name__ == "__main__":
    main()
