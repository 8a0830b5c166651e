"""./dev bench [LLAMA_BENCH]: tokens per second of prompt and answer on SmolLM2-135M; with the path of a llama-bench program,
interleaved rounds against it and the median of the rounds' ratios. Rates of one machine at one time mean little; ratios do."""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts")]

import fetch  # noqa: E402

PLUMB = ROOT / "build" / "release" / "plumb"
PROMPT, ANSWER, ROUNDS = 512, 64, 7


def ours(model, threads):
    """Prompt and answer rates of one run."""
    ids = ",".join(str(100 + 7 * i % 40000) for i in range(PROMPT))
    r = subprocess.run([PLUMB, "run", "-m", model, "--tokens", ids, "-n", str(ANSWER), "--temp", "0", "--ignore-eos",
                        "-t", str(threads)], capture_output=True, text=True, check=True)
    return [float(rate) for rate in re.findall(r"\(([\d.]+)/s\)", r.stderr)]


def theirs(program, model, threads):
    r = subprocess.run([program, "-m", model, "-p", str(PROMPT), "-n", str(ANSWER), "-r", "1", "-t", str(threads), "-o", "json"],
                       capture_output=True, text=True, check=True)
    rates = {bool(t["n_prompt"]): t["avg_ts"] for t in json.loads(r.stdout)}
    return [rates[True], rates[False]]


def main():
    rival = sys.argv[1] if len(sys.argv) > 1 else None
    model = str(fetch.fetch("smollm2"))
    for threads in (1, 2):
        a, b = [], []
        for i in range(ROUNDS):
            a.append(ours(model, threads))
            if rival:
                b.append(theirs(rival, model, threads))
        for k, name in enumerate((f"prompt of {PROMPT}", f"answer of {ANSWER}")):
            line = f"{threads} thread{'s'[:threads - 1]}, {name}: {statistics.median(r[k] for r in a):.0f} tokens/s"
            if rival:
                ratios = sorted(x[k] / y[k] for x, y in zip(a, b))
                line += f", {statistics.median(ratios):.2f} of the rival's ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(line, flush=True)


if __name__ == "__main__":
    main()
