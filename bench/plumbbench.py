"""PlumbBench: does `plumb diagnose` name the bug? Faulty numbers from independent engines, at six levels of evidence.

    python3 bench/plumbbench.py make OUT [--groups smollm2,gemma,random] [--levels C,Cp,D] [--limit N]
    python3 bench/plumbbench.py grade OUT [--plumb BINARY] [--levels ...] [--limit N]
    python3 bench/plumbbench.py table OUT

Seeded and resumable: what is there is neither made nor graded again. With the tests' Python; docs/plumbbench.md says more. llama.cpp is
found as by `plumb record llamacpp` (LLAMA_CPP_LIB_PATH, PYTHONPATH); without it its cases fail and are left out.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads that wait for each other on a busy machine take ten times as long
sys.path.insert(0, str(Path(__file__).resolve().parent))

from plumbbench import cases, grade, make, table  # noqa: E402
from plumbbench.evidence import LEVELS  # noqa: E402


def words(text):
    return [word for word in text.split(",") if word]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("make", "grade", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--plumb", default=os.environ.get("PLUMB") or str(cases.ROOT / "build" / "release" / "plumb"))
    parser.add_argument("--groups", type=words, default=["smollm2", "gemma", "random"])
    parser.add_argument("--levels", type=words, default=list(LEVELS))
    parser.add_argument("--kinds", type=words, default=[], help="single, pair, outside, benign, text, poison")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=0, help="cases to make, or files to grade")
    parser.add_argument("--traces", type=int, default=0, help="make: full traces to keep; others are made when graded")
    parser.add_argument("--flags", type=words, default=[], help="grade: further arguments of plumb diagnose, with commas")
    parser.add_argument("--timeout", type=float, default=600, help="grade: seconds of CPU per diagnosis")
    parser.add_argument("--jobs", type=int, default=1, help="cases side by side; grade: with --flags=-t,1")
    a = parser.parse_args()
    if a.action == "make":
        make.make(a.out, a.plumb, a.groups, a.levels, a.kinds, a.seed, a.limit, a.traces, a.jobs)
    elif a.action == "grade":
        grade.grade(a.out, a.plumb, a.groups, a.levels, a.kinds, a.limit, a.flags, a.timeout, a.jobs)
    else:
        table.show(a.out, a.levels, a.plumb)


if __name__ == "__main__":
    main()
