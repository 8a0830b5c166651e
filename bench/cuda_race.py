"""Races plumb on a CUDA device with llama.cpp's llama-bench and llama-batched-bench: the same files, interleaved, ratios per round.

    python3 bench/cuda_race.py --plumb PLUMB --llama-bench LLAMA_BENCH MODEL:TESTS...

TESTS are separated by commas: pp512 (a prompt of 512 tokens), tg128 (128 tokens one by one), tg64@4096 (behind 4,096
others), pp2048/512 (both in pieces of 512 tokens instead of each program's default: -ub); np8 (8 sequences answer 128
tokens each together, behind prompts of 128; needs --llama-batched-bench). Tests of one depth and piece share a process. A round
runs both engines on one model, in turn the one or the other first; each test's rate is the median of its repetitions.
Prints each round as it ends, then per test the median of the ratios and their range, as bench/ratios.csv has them.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time

TEST = re.compile(r"(pp|tg)(\d+)(?:@(\d+))?(?:/(\d+))?$")


def groups(tests):
    """{(depth, piece or None): [(kind, tokens, name)]} of a list of tests."""
    found = {}
    for name in tests.split(","):
        match = TEST.match(name)
        if not match:
            raise SystemExit(f"no test: {name}")
        kind, tokens, depth, piece = match.groups()
        found.setdefault((depth or "0", piece), []).append((kind, tokens, name))
    return found


def rates(command, model, depth, piece, tests, repetitions):
    """{test: tokens/s} of one process; both programs know these flags and this output."""
    sizes = {kind: ",".join(t for k, t, _ in tests if k == kind) or "0" for kind in ("pp", "tg")}
    pieces = ["-ub", piece] if piece else []
    run = [*command, "-m", model, "-p", sizes["pp"], "-n", sizes["tg"], "-d", depth, *pieces, "-r", str(repetitions), "-o", "jsonl"]
    lines = subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines()
    out = {}
    for result in map(json.loads, lines):
        kind, tokens = ("pp", result["n_prompt"]) if result["n_prompt"] else ("tg", result["n_gen"])
        for k, t, name in tests:
            if (k, int(t)) == (kind, tokens):
                out[name] = statistics.median(result["samples_ts"])
    return out


def together(command, model, counts):
    """{test: tokens/s of all sequences together} of one process."""
    run = [*command, "-m", model, "-npp", "128", "-ntg", "128", "-npl", ",".join(map(str, counts)), "--output-format", "jsonl"]
    lines = subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines()
    return {f"np{r['pl']}": r["speed_tg"] for r in map(json.loads, (line for line in lines if line.startswith("{")))}


def one_round(engines, batched, model, tests, first, repetitions):
    """{test: {engine: tokens/s}}."""
    found = {}
    counts = [int(t[2:]) for t in tests.split(",") if t.startswith("np")]
    single = ",".join(t for t in tests.split(",") if not t.startswith("np"))
    for engine in (list(engines) if first else list(engines)[::-1]):
        for (depth, piece), group in (groups(single) if single else {}).items():
            for test, rate in rates(engines[engine], model, depth, piece, group, repetitions).items():
                found.setdefault(test, {})[engine] = rate
        for test, rate in (together(batched[engine], model, counts) if counts else {}).items():
            found.setdefault(test, {})[engine] = rate
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plumb", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--llama-batched-bench")
    parser.add_argument("--act", default="f16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1e9, help="no round begins later")
    parser.add_argument("cases", nargs="+", metavar="MODEL:TESTS")
    args = parser.parse_args()
    engines = {"plumb": [args.plumb, "bench", "--backend", "cuda", "--act", args.act, "--no-probe"],
               "llama.cpp": [args.llama_bench, "-fa", "1", "-ngl", "99"]}
    batched = {"plumb": [args.plumb, "batched-bench", "--backend", "cuda", "--act", args.act],
               "llama.cpp": [args.llama_batched_bench, "-fa", "1", "-ngl", "99", "-c", "16384"]}
    end = time.monotonic() + args.seconds
    for case in args.cases:
        model, tests = case.rsplit(":", 1)
        seen = {}
        for i in range(args.rounds):
            if time.monotonic() > end:
                break
            for test, rate in one_round(engines, batched, model, tests, i % 2 == 0, args.repetitions).items():
                seen.setdefault(test, []).append(rate)
                print(json.dumps({"model": model, "test": test, "round": i, **rate}), file=sys.stderr, flush=True)
        for test, rounds in seen.items():
            ratios = [r["plumb"] / r["llama.cpp"] for r in rounds]
            middle = {e: statistics.median(r[e] for r in rounds) for e in engines}
            print(f"{model},{test},{args.act},{statistics.median(ratios):.3f},{min(ratios):.3f},{max(ratios):.3f},{len(rounds)},"
                  f"plumb {middle['plumb']:.0f},llama.cpp {middle['llama.cpp']:.0f}", flush=True)


if __name__ == "__main__":
    main()
