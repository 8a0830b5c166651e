"""Makes the evidence: for each case a folder with case.json and one file per level. What exists is not made again."""

import functools
import gc
import json
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

from plumbbench import cases, engines
from plumbbench import evidence as e

PROMPT_LEVELS = ("A", "C", "Cp", "D")


class Maker:
    def __init__(self, out, plumb, traces=()):
        self.out, self.plumb, self.traces = Path(out), plumb, frozenset(traces)  # traces: ids of cases whose full trace is kept
        self.prompts = engines.Prompts(plumb)

    def given(self, case):
        """(text, ids) that the engine of this case sees."""
        if case["kind"] == "text":
            return self.prompts.faulty(case["model"], case["prompt"], case["faults"][0])
        return self.prompts.prompt(case["model"], case["prompt"])

    def run(self, case):
        """(run, all ids, calls, prompt ids, text)"""
        text, ids = self.given(case)
        run, all_ids, calls = (engines.oracle(case, ids) if engines.of_oracle(case) else
                               engines.other_engine(case, ids, self.plumb))
        return run, all_ids, calls, ids, text

    def visible(self, case, run, ids, calls):
        """{level: whether it shows the fault, or each fault of a pair beside the other} of the prompt's levels."""
        if case["kind"] == "benign":
            return dict.fromkeys(PROMPT_LEVELS, False)
        if case["kind"] == "text":
            return dict.fromkeys(PROMPT_LEVELS, True)
        shown = [self.differs(case, run, ids, calls, without) for without in cases.lesser(case)]
        return {level: all(s[level] for s in shown) for level in PROMPT_LEVELS}

    def differs(self, case, run, ids, calls, without):
        """{level: whether it tells the run from that of a case with fewer faults}."""
        best = engines.lesser_run(without, ids, calls, "f64" if "f32" in case["engine"].split() else "f32")
        if engines.of_oracle(case):
            ours = engines.lesser_run(without, ids, calls, case["engine"])
        else:  # its own healthy run; llama.cpp writes some values of the last token only
            ours, best = (same_rows(r, run) for r in (
                engines.healthy_run(case["model"], case["engine"], tuple(ids), self.plumb), best))
        first = [[v for v in r if v.step == 0] for r in (run, ours, best)]
        return {"A": e.shows_elements(run, ours, best), "C": e.shows_statistics(run, ours, best),
                "Cp": e.shows_statistics(*first, e.log_lines(first[0])), "D": e.shows_logits(*first)}

    def prompt_levels(self, case, folder, levels):
        run, all_ids, calls, ids, text = self.run(case)
        case["visible"] |= self.visible(case, run, all_ids, calls)
        if "C" in levels:
            e.write_statistics(folder / "C.json", run, all_ids, text, calls)
        first = [v for v in run if v.step == 0]
        if "Cp" in levels:
            e.write_statistics(folder / "Cp.json", first, ids, text, only=e.log_lines(first))
        if "D" in levels:
            e.write_logits(folder / "D.json", first, ids, text)
        if "A" in levels:
            self.trace(case, folder / "A.trace", (run, all_ids, calls, ids, text))

    def trace(self, case, path, made=None):
        """The full trace of a case."""
        run, all_ids, calls, _, text = made or self.run(case)
        base = engines.base(case["model"])
        e.write_trace(path, run, all_ids, text, calls, base.heads(), base.w.arch)

    def generated(self, case, folder, levels):
        """Levels E and E6: what the model says greedily, for one prompt and for those of plumb probe; of the first prompt's
        cases in q8."""
        usual = case["engine"] == "q8" and case["prompt"] == 0 and case["kind"] in ("single", "outside")
        if not engines.of_oracle(case) or not usual and case["kind"] != "benign":
            return
        if "E" in levels:
            text, ids = self.prompts.prompt(case["model"], case["prompt"])
            self.answered(case, folder, "E", ["E.json"], [ids], 32, text)
        if "E6" in levels:
            asked = self.prompts.probes(case["model"], self.out)
            self.answered(case, folder, "E6", [f"E6-{i + 1}.json" for i in range(len(asked))], asked, 16, None)

    def answered(self, case, folder, level, files, prompts, n, text):
        said = [ids for ids, _ in engines.model_of(case).generate(prompts, n)]
        case["visible"][level] = said != self.healthy_words(case, level, prompts, n)
        for name, ids, words in zip(files, prompts, said):
            e.write_generated(folder / name, ids, words, text)

    def healthy_words(self, case, level, prompts, n):
        key = (case["model"], case["engine"], level, case["prompt"] if level == "E" else -1)
        if key not in self.prompts.known:
            right = case | {"faults": [], "numbers": []}
            self.prompts.known[key] = [ids for ids, _ in engines.model_of(right).generate(prompts, n)]
        return self.prompts.known[key]

    def missing(self, case, levels):
        """(the case as far as it was made, the levels that are not there)."""
        known = self.out / case["id"] / "case.json"
        case = json.loads(known.read_text()) if known.exists() else case | {"visible": {}}
        return case, [] if "failed" in case else [level for level in levels if level not in case["visible"]]

    def one(self, case, levels, missing):
        """Makes the levels of one case that are missing; returns what it did."""
        folder = self.out / case["id"]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with np.errstate(all="ignore"):
                if set(missing) & set(PROMPT_LEVELS):
                    self.prompt_levels(case, folder, [level for level in levels if level != "A"]
                                       + ["A"] * (case["id"] in self.traces))
                self.generated(case, folder, missing)
        except (RuntimeError, ValueError, KeyError, IndexError, AttributeError, OSError) as error:
            case["failed"] = f"{type(error).__name__}: {error}"[:300]
        for level in levels:
            case["visible"].setdefault(level, False)
        part = folder / "case.part"
        part.write_text(json.dumps(case, indent=1))
        part.rename(folder / "case.json")
        return case.get("failed") or " ".join(k for k, v in case["visible"].items() if v)


def models(group, plumb):
    """[(group, path)] of a group; random ones are made."""
    if group in ("smollm2", "gemma"):
        import fetch
        return [(group, str(fetch.fetch(group)))]
    import harness
    return [(f"random-{c.name}", path) for c, path in harness.small_models() if c.name in cases.RANDOM]


def traced(planned, count):
    """Ids of the cases whose full trace is kept."""
    some = [c["id"] for c in planned if c["kind"] in ("single", "outside") and cases.seeded("trace", c["id"]).random() < 0.15]
    return some[:count]


def make(out, plumb, groups, levels, kinds, seed, limit, traces, jobs):
    planned = []
    for group in groups:
        for name, path in models(group, plumb):
            of_model = list(cases.plan(seed, name, path, engines.base(path), plumb))
            assert len({c["id"] for c in of_model}) == len(of_model), "two cases have one name"
            planned += [c for c in sorted(of_model, key=cases.order) if not kinds or c["kind"] in kinds]
    Path(out).mkdir(parents=True, exist_ok=True)
    maker = Maker(out, plumb, traced(planned, traces))
    wanted = [(c, levels, missing) for c, missing in (maker.missing(c, levels) for c in planned) if missing][:limit or None]
    if "E6" in levels:
        for path in sorted({c["model"] for c, *_ in wanted}):  # before several processes ask for them
            maker.prompts.probes(path, out)
    for case, seconds, done in side_by_side(jobs, functools.partial(one_timed, maker), wanted):
        print(f"{seconds:5.1f} s  {case}: {done}", flush=True)
    print(f"{len(wanted)} cases made", file=sys.stderr)


def one_timed(maker, case, levels, missing):
    start = time.time()
    done = maker.one(case, levels, missing)
    gc.collect()  # replaced parts refer to their model
    return case["id"], time.time() - start, done


def side_by_side(jobs, function, calls):
    """What a function of a list of arguments returns for each, as they end; jobs: processes, each with its own copy of what the
    function holds, shared as long as it does not change."""
    if jobs == 1:
        yield from (function(*call) for call in calls)
        return
    with multiprocessing.get_context("fork").Pool(jobs, SideBySide, (function, )) as pool:
        yield from pool.imap_unordered(SideBySide.call, calls)


class SideBySide:
    """A process's own copy of the function."""
    function = None

    def __init__(self, function):
        SideBySide.function = function

    @staticmethod
    def call(arguments):
        return SideBySide.function(*arguments)


def same_rows(run, like):
    """The rows of a run that another has."""
    mine = {v.name: v for v in run}
    return [v._replace(rows=mine[v.name].rows[v.first - mine[v.name].first:][:len(v.rows)]) for v in like if v.name in mine]
