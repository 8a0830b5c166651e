"""Judges the answers of plumb diagnose and prints the table.

A hypothesis is right when one of the true ids, an id that the catalogue calls its equal, or one in the class that the hypothesis
stands for, is planted. Hypotheses of one class count once. `consistent` is right for healthy engines alone; an answer is an accusation
when its verdict is "named", of a wrong engine unless it says no more than "nearest". Faults that a level does not show are counted as invisible and left out of n.
"""

import json
import math
import statistics
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

from plumbbench import grade
from plumbbench.evidence import LEVELS, SHOWN

def equals(plumb):
    """{id: ids that the catalogue calls equal to it}, both ways."""
    r = subprocess.run([plumb, "faults", "list", "--json"], capture_output=True, text=True)
    known = json.loads(r.stdout) if r.returncode == 0 else []
    found = defaultdict(set)
    for entry in known["faults"] if isinstance(known, dict) else known:
        for other in entry["equivalent"].split():
            found[entry["id"]].add(other)
            found[other].add(entry["id"])
    return found


def sets_of(hypothesis):
    """The fault sets that a hypothesis stands for."""
    return [frozenset(s) for s in [hypothesis.get("faults") or [], *(hypothesis.get("class") or [])]]


def matches(fault_set, answers, same):
    """Whether a set of ids is the planted faults: each has its right id, and there is none besides."""
    wanted = [set(ids) | {e for i in ids for e in same.get(i, ())} for ids in answers]
    rest = set(fault_set)
    if len(rest) != len(wanted):
        return False
    if len(wanted) == 1:
        return bool(rest & wanted[0])
    return len(wanted) == 2 and any(a in wanted[0] and b in wanted[1] for a in rest for b in rest - {a})


def ranked(answer):
    """Hypotheses, best first, each class once."""
    seen, kept = set(), []
    for h in answer["hypotheses"]:
        sets = sets_of(h)
        if not any(s in seen for s in sets[:1]):
            kept.append(h)
        seen |= set(sets)
    return kept


def rank(answer, answers, same):
    """The place of the truth among the hypotheses, from 1; infinity if it is not there."""
    for place, h in enumerate(ranked(answer), 1):
        if any(matches(s, answers, same) for s in sets_of(h)):
            return place
    return math.inf


def judged(case, answer, same):
    """What the table counts of one answer."""
    found = {"kind": case["kind"], "verdict": answer.get("verdict", "failed"), "cpu": answer.get("cpu", math.nan)}
    best = answer["hypotheses"][0] if answer["hypotheses"] else {}
    found["p"] = best.get("p") or 0.0
    # "Nearest known fault", which is what is said from logits or ids alone, accuses no engine that is wrong.
    found["accused"] = found["verdict"] == "named" and bool(best.get("faults")) and (
        case["kind"] == "benign" or not answer.get("weak"))
    found["class"] = len(set(sets_of(best))) if best else 0
    if all(case["answers"]) and case["answers"]:
        found["rank"] = rank(answer, case["answers"], same)
        number, fitted = (case["numbers"] or [None])[0], (best.get("parameters") or [None])[0]
        if number is not None and found["rank"] == 1 and len(case["answers"]) == 1:
            found["close"] = fitted is not None and abs(fitted - number) <= 0.1 * abs(number)
        found["exact"] = bool(best) and matches(best.get("faults") or [], case["answers"], {})
    return found


def percent(part, whole):
    return f"{100 * part / whole:.0f}" if whole else "-"


def interval(part, whole):
    """Wilson's 95 % interval of a share, in percent."""
    if not whole:
        return "-"
    p, z = part / whole, 1.96
    centre, half = p + z * z / (2 * whole), z * math.sqrt(p * (1 - p) / whole + z * z / (4 * whole * whole))
    low, high = ((centre + sign * half) / (1 + z * z / whole) for sign in (-1, 1))
    return f"{100 * low:.0f} to {100 * high:.0f}"


def row(found):
    """The figures of one level and group."""
    single = [f for f in found if f["kind"] in ("single", "text", "poison")]
    pair = [f for f in found if f["kind"] == "pair"]
    outside, benign = ([f for f in found if f["kind"] == k] for k in ("outside", "benign"))
    verdicts = Counter(f["verdict"] for f in outside)
    sure = [(f["p"], f["rank"] == 1) for f in single + pair if "rank" in f]
    walls = [f["cpu"] for f in found if not math.isnan(f["cpu"])]
    near = [f["close"] for f in single if "close" in f]
    return {
        "n": str(len(single)),
        "top-1 / 3": f"{percent(sum(f['rank'] == 1 for f in single), len(single))} / "
                     f"{percent(sum(f['rank'] <= 3 for f in single), len(single))}",
        "top-1 within": interval(sum(f['rank'] == 1 for f in single), len(single)),
        "exact; class": f"{percent(sum(f['exact'] for f in single), len(single))}; "
                        + (f"{statistics.mean(f['class'] for f in single):.1f}" if single else "-"),
        "number within 10 %": f"{sum(near)}/{len(near)}",
        "pairs": f"{sum(f['rank'] == 1 for f in pair)}/{len(pair)}",
        "outside: unknown or place, accused": f"{verdicts['unknown'] + verdicts['place']}, "
                                              f"{sum(f['accused'] for f in outside)} of {len(outside)}",
        "benign accused": f"{sum(f['accused'] for f in benign)}/{len(benign)}",
        "Brier": f"{statistics.mean((p - hit)**2 for p, hit in sure):.3f}" if sure else "-",
        "CPU s": f"{statistics.median(walls):.0f}, {max(walls):.0f}" if walls else "-",
    }


def group_of(case):
    if case["group"].startswith("random"):
        return "random weights"
    return {"smollm2": "SmolLM2", "gemma": "gemma"}.get(case["group"], case["group"]) + (
        ", poisoned files" if case["kind"] == "poison" else "")


def reliability(found):
    """Of what was said with p in a band: how often, how sure on average, how often right."""
    bands = defaultdict(list)
    for f in found:
        if "rank" in f:
            bands[min(int(f["p"] * 5), 4)].append((f["p"], f["rank"] == 1))
    for band, members in sorted(bands.items()):
        said, right = statistics.mean(p for p, _ in members), statistics.mean(hit for _, hit in members)
        print(f"| {band / 5:.1f} to {(band + 1) / 5:.1f} | {len(members)} | {said:.2f} | {right:.2f} |")


def show(out, levels, plumb):
    known, same = {c["id"]: c for c in grade.all_cases(out)}, equals(plumb)
    latest = {(r["case"], r["level"]): r for r in grade.results(out) if r["case"] in known}
    groups, losses, everything = defaultdict(list), [], []
    for (name, level), answer in latest.items():
        case = known[name]
        found = judged(case, answer, same)
        groups[group_of(case), level].append(found)
        everything.append(found)
        wrong = found.get("rank", 1) > 1 or (case["kind"] in ("outside", "benign") and found["accused"])
        if wrong:
            said = [("+".join(h.get("faults") or []) or "none") + f" {h.get('p') or 0:.2f}" for h in ranked(answer)[:3]]
            losses.append((level, name, found["verdict"], said or [answer.get("error", "")]))
    names = list(row([]))
    print("| model | level | invisible | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 3))
    for group in sorted({g for g, _ in groups}):
        for level in [level for level in LEVELS if level in levels and (group, level) in groups]:
            mine = [c for c in known.values() if group_of(c) == group and c["kind"] in ("single", "poison", "text", "pair")]
            hidden = sum(level in c["visible"] and not c["visible"][level] for c in mine)
            figures = row(groups[group, level])
            print(f"| {group} | {SHOWN[level]} | {hidden} of {len(mine)} | {' | '.join(figures[n] for n in names)} |")
    print("\n| p said | answers | mean p | right |\n|---|---|---|---|")
    reliability(everything)
    print(f"\n{len(losses)} answers that are not right:\n")
    for level, name, verdict, said in sorted(losses):
        print(f"- {level} {name}: {verdict}; {', '.join(said)}")
    (Path(out) / "losses.json").write_text(json.dumps(losses))
