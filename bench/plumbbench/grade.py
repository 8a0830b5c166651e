"""Asks `plumb diagnose` about each piece of evidence and keeps what it answered, one JSON line per question.

Nothing is judged here but whether an answer is readable; table.py judges. Cases come in a seeded order, so the first N are a fair sample.
"""

import functools
import json
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from plumbbench import cases
from plumbbench.make import Maker, side_by_side

RESULTS = "results.jsonl"


def results(out):
    path = Path(out) / RESULTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def all_cases(out):
    """Every case that was made, in the order of the benchmark."""
    found = [json.loads(path.read_text()) for path in Path(out).glob("*/*/*/case.json")]
    found = [c for c in found if "failed" not in c]
    return sorted(found, key=cases.order)


def asked(case, level):
    """Whether a level of a case is asked about: it must show the fault, or be of an engine that is healthy."""
    return level in case["visible"] and (case["visible"][level] or case["kind"] == "benign") or (
        case["kind"] == "benign" and level in ("A", "C", "Cp", "D"))


def files(out, case, level):
    folder = Path(out) / case["id"]
    if level == "E6":
        return sorted(folder.glob("E6-*.json"))
    return [folder / ("A.trace" if level == "A" else f"{level}.json")]


def ask(plumb, evidence, model, flags, timeout):
    """What the program said, with the seconds it took: of CPU, which others on the machine do not change, and by the clock."""
    def seconds():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    start, before = time.time(), seconds()
    r = subprocess.run([plumb, "diagnose", *map(str, evidence), "-m", model, "--json", *flags], capture_output=True, text=True,
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (int(timeout), int(timeout) + 5)))
    try:
        answer = {"status": r.returncode} | json.loads(r.stdout)
    except ValueError:
        said = f"no answer in {timeout:.0f} s of CPU" if r.returncode < 0 else "no JSON"
        answer = {"error": (r.stderr.strip().splitlines() or [said])[-1][:300], "status": r.returncode}
    return answer | {"cpu": round(seconds() - before, 2), "wall": round(time.time() - start, 2)}


def shortened(answer):
    """Without what no table needs."""
    kept = {k: answer[k] for k in ("verdict", "weak", "first", "status", "error", "cpu", "wall", "seconds") if k in answer}
    kept["hypotheses"] = [{k: h.get(k) for k in ("faults", "parameters", "p", "log_likelihood", "class")}
                          for h in (answer.get("hypotheses") or [])[:8]]
    return kept


def one(maker, flags, timeout, case, level):
    """The line that is kept of one question."""
    evidence, made = files(maker.out, case, level), None
    try:
        if level == "A" and not evidence[0].exists():
            made = Path(tempfile.mkdtemp(dir=maker.out, prefix=".A-"))
            evidence = [made / "A.trace"]
            maker.trace(case, evidence[0])
        answer = ask(maker.plumb, evidence, case["model"], flags, timeout)
        return {"case": case["id"], "level": level} | shortened(answer)
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)


def questions(out, groups, levels, kinds, limit):
    """[(case, level)] to be asked that were not."""
    done = {(r["case"], r["level"]) for r in results(out)}
    of_groups = [c for c in all_cases(out) if any(c["group"].startswith(g) for g in groups) and (not kinds or c["kind"] in kinds)]
    return [(case, level) for level in levels for case in [c for c in of_groups if asked(c, level)][:limit or None]
            if (case["id"], level) not in done]


def grade(out, plumb, groups, levels, kinds, limit, flags, timeout, jobs):
    asked_now, ask_one = questions(out, groups, levels, kinds, limit), functools.partial(one, Maker(out, plumb), flags, timeout)
    with open(Path(out) / RESULTS, "a") as stream:
        for answer in side_by_side(jobs, ask_one, asked_now):
            stream.write(json.dumps(answer) + "\n")
            stream.flush()
            best = answer["hypotheses"][0] if answer["hypotheses"] else {}
            print(f"{answer['cpu']:6.1f} s {answer['level']:2} {answer['case']}: {answer.get('verdict', answer.get('error'))} "
                  f"{'+'.join(best.get('faults') or []) or '-'} p={best.get('p')}", flush=True)
    print(f"{len(asked_now)} questions asked")
