"""Runs of the engines that the benchmark takes its numbers from: the NumPy oracle, llama.cpp, MLX, and Plumb for healthy runs."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
from gguf import GGUFReader

from plumbbench import cases
from plumbbench.evidence import Value, read_trace

sys.path.append(str(cases.ROOT / "tests" / "oracle"))
from planting import Faulty  # noqa: E402

STEPS_SHOWN = 4  # of a fault that only steps show


@functools.lru_cache(maxsize=2)
def base(path):
    """The model of a file without faults; others share its weights."""
    return Faulty(path)


def plants_of(case):
    """[(fault, what plants it with its number)]"""
    numbers = case["numbers"] or [None] * len(case["faults"])
    known = [(cases.PLANTED[name], number) for name, number in zip(case["faults"], numbers) if name in cases.PLANTED]
    return [(fault, fault.plant(number) if fault.values else fault.plant) for fault, number in known]


def model_of(case):
    return Faulty(case["model"], [plant for _, plant in plants_of(case)], case["engine"], like=base(case["model"]))


def of_oracle(case):
    return case["engine"].split()[0] not in ("llama.cpp", "plumb", "mlx")


class Prompts:
    """Texts and ids of one model; ids come from `plumb tokenize`, those of random models from a seed."""

    def __init__(self, plumb):
        self.plumb, self.known = plumb, {}

    def ids(self, path, text, special=True, bos=True):
        key = (path, text, special, bos)
        if key not in self.known:
            flags = ([] if special else ["--no-parse-special"]) + ([] if bos else ["--no-bos"])
            if special:
                flags.append("--parse-special")
            r = subprocess.run([self.plumb, "tokenize", "-m", path, "-p", text, "--ids", *flags], capture_output=True, text=True)
            if r.returncode:
                raise RuntimeError(r.stderr.strip())
            self.known[key] = json.loads(r.stdout)
        return self.known[key]

    def prompt(self, path, n):
        """(text or None, ids) of the n-th prompt."""
        arch = base(path).w.arch
        if not real(path):
            vocabulary = len(base(path).w.f32("token_embd.weight"))
            return None, [1] + [int(i) for i in cases.seeded("prompt", n).integers(3, min(300, vocabulary), 20)]
        text = cases.CHAT[arch].format(cases.QUESTIONS[n])
        return text, self.ids(path, text)

    def probes(self, path, out):
        """The prompts, as ids, that `plumb probe` chooses for a model; kept in the benchmark's folder."""
        kept = Path(out) / f"probe-{Path(path).stem}.json"
        if not kept.exists():
            r = subprocess.run([self.plumb, "probe", "-m", path, "--json"], capture_output=True, text=True)
            if r.returncode:
                raise RuntimeError(r.stderr.strip())
            kept.write_text(r.stdout)
        return [p["ids"] for p in json.loads(kept.read_text())["prompts"]]

    def faulty(self, path, n, name):
        """(the text, the ids that a fault of family K makes of it)."""
        text, ids = self.prompt(path, n)
        w = base(path).w
        bos, eos = (int(w.reader.fields[f"tokenizer.ggml.{k}_token_id"].contents()) for k in ("bos", "eos"))
        word = name.split()[0]
        if word in ("K1", ):
            return text, ids[1:]
        if word in ("K1b", "K2"):
            return text, [bos] * (2 if word == "K2" and ids[0] != bos else 1) + ids
        if word == "K3":
            return text, ids + [eos]
        if word == "K7b":
            return text, ids[:-1]
        other = {"K4": cases.QUESTIONS[n], "K5": text, "K7": text.replace("\n", " "),
                 "K4b": text[:text.rindex("<")]}[word]
        return text, self.ids(path, other, special=word != "K5")


def real(path):
    return "SmolLM2" in Path(path).name or "gemma-3-270m" in Path(path).name


def as_run(values, calls):
    """Values of the oracle, cut into calls."""
    run, ends = [], np.cumsum(calls)
    for step, end in enumerate(ends):
        first = int(end - calls[step])
        run += [Value(name, first, step, rows[first:end]) for name, rows in values.items() if len(rows) >= end]
    return shown(run)


def shown(run):
    """As engines show it: logits of the last row of each call only."""
    return [v if v.name != "logits" else v._replace(first=v.first + len(v.rows) - 1, rows=v.rows[-1:]) for v in run]


def oracle(case, ids):
    """(run, ids with those of the steps, calls or None): steps only for faults that need them."""
    model = model_of(case)
    if not any(cases.is_step(n) for n in case["faults"]):
        return as_run(model.values(ids), [len(ids)]), ids, None
    generated = model.generate([ids], STEPS_SHOWN)[0][0]
    calls = [len(ids)] + [1] * STEPS_SHOWN
    return as_run(model_of(case).values([*ids, *generated], calls), calls), [*ids, *generated], calls


def lesser_run(case, ids, calls, arithmetic):
    """The same call by a case with fewer faults."""
    faults = tuple(case["faults"]), tuple(case["numbers"])
    return run_with(case["model"], faults, tuple(ids), tuple(calls or [len(ids)]), arithmetic)


@functools.lru_cache(maxsize=12)
def run_with(path, faults, ids, calls, arithmetic):
    model = model_of({"model": path, "faults": faults[0], "numbers": faults[1], "engine": arithmetic})
    return as_run(model.values(list(ids), list(calls)), list(calls))


def ran(command):
    r = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError((r.stderr.strip().splitlines() or ["failed"])[-1])


def engine_command(plumb, engine, path, ids, out):
    tokens = ["--tokens", ",".join(map(str, ids)), "-m", path, "-o", out]
    if engine.startswith("plumb"):
        return [plumb, "trace", *engine.split()[1:], *tokens] if engine != "plumb fast" else [plumb, "trace", *tokens]
    python = os.environ.get("PLUMB_PYTHON") or sys.executable
    recorder = ["mlx", "--dtype", engine.split()[1]] if engine.startswith("mlx") else ["llamacpp", *engine.split()[1:]]
    return [plumb, "record", "--python", python, *recorder, *tokens]


def run_in_place(case, ids, out):
    """llama.cpp's own run, where its callback replaces the outputs of the faulty operations by the oracle's; in a process of its
    own, as what a callback breaks may end it."""
    pid = os.fork()
    if pid == 0:
        try:
            import callback_faults  # needs llama-cpp-python
            change = callback_faults.planted(plants_of(case), case["model"], ids, base(case["model"]))
            callback_faults.Engine(case["model"]).run(ids, change, out)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("llama.cpp with a callback failed")


# What a weight's product goes through, up to the values that others take part in.
BEHIND = {"attn_q": ("attn_q", "attn_q_norm", "q_rope"), "attn_k": ("attn_k", "attn_k_norm", "k_rope"), "attn_v": ("attn_v", ),
          "token_embd": ("token_embd", )}


def changed_weights(path, other):
    """Kinds of the weights of the first layer, and of those outside all layers, that differ between two files."""
    first, second = ({t.name.removeprefix("blk.0.").split(".")[0]: t for t in GGUFReader(p).tensors
                      if t.name.startswith("blk.0.") or not t.name.startswith("blk.")} for p in (path, other))
    return {kind for kind, t in first.items() if not np.array_equal(t.data, second[kind].data)}


def stand_ins(changed, first):
    """Kinds of values that a poisoned file moves before its fault shows at `first`: scores have another scale because the weights of
    attn_q do. An engine with the fault would not print them so."""
    found = set()
    for kinds in (BEHIND.get(weight, ()) for weight in changed if "@weights" not in first):
        for kind in kinds:
            if {kind, kind.replace("k_rope", "q_rope")} & set(first.split()):
                break
            found.add(kind)
    return found


def other_engine(case, ids, plumb):
    """(run, ids, None) of llama.cpp or MLX, on a poisoned file or with edits in place if the case has a fault, or of Plumb."""
    with tempfile.TemporaryDirectory() as work:
        path, out, hidden = case["model"], Path(work) / "t", set()
        if case["kind"] == "poison":
            path = Path(work) / "poisoned.gguf"
            ran([plumb, "faults", "poison", case["faults"][0].split()[0], "-m", case["model"], "-o", path])
            hidden = stand_ins(changed_weights(case["model"], path), case["first"])
        if case["engine"] == cases.CALLBACK:
            run_in_place(case, ids, out)
        else:
            ran(engine_command(plumb, case["engine"], path, ids, out))
        run = [v for v in read_trace(out)[1] if v.name.rsplit(".", 1)[-1] not in hidden]
        run = shown([v._replace(rows=np.array(v.rows)) for v in run])  # the shards go
        shutil.rmtree(out, ignore_errors=True)
    return run, ids, None


@functools.lru_cache(maxsize=4)
def healthy_run(path, engine, ids, plumb):
    """What such an engine shows without a fault."""
    engine = "llama.cpp" if engine == cases.CALLBACK else engine
    return other_engine({"model": path, "kind": "benign", "engine": engine}, list(ids), plumb)[0]
