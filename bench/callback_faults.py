"""Plants the faults of tests/oracle/faults.py into unmodified llama.cpp and asks `plumb diff` for the place.

    python3 bench/callback_faults.py [MODEL.gguf ...]     # default: SmolLM2 and gemma; a Python with llama-cpp-python, gguf

The public evaluation callback may change a tensor between two nodes: where a faulty operation wrote, its output is computed
again by the NumPy oracle with the fault, from llama.cpp's own inputs, and put in its place. All else is llama.cpp's. Then two
faults at once, and with -fa off faults inside attention: scores, softmax and sums of values. Replay must mark the operations whose
values the fault moves by more than half precision rounds (eps 0.3 for 1e-5 hardly moves any behind 30 layers), and no healthy one.
Prints a table.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "oracle"), str(ROOT / "scripts"), str(ROOT / "tools" / "record")]

import diff_test as d  # noqa: E402
import fetch  # noqa: E402
import llamacpp  # noqa: E402
import numpy as np  # noqa: E402
from faults import FAULTS, Faulty  # noqa: E402
from llama_cpp import llama_cpp as llama  # noqa: E402
from planting import tail  # noqa: E402
from trace_writer import TraceWriter  # noqa: E402

TEXT = "The quick brown fox jumps over the lazy dog. It was"
PAIRS = 12
HALF = 2**-11  # rounding of half precision


def memory_of(t):
    """The elements of a tensor as rows_of() shows them, but in place."""
    kind = {0: np.float32, 1: np.float16}[t.type]
    shape, strides = [t.ne[2], t.ne[1], t.ne[0]], [t.nb[2], t.nb[1], t.nb[0]]
    end = sum((n - 1) * s for n, s in zip(shape, strides)) + kind().itemsize
    bytes_ = np.frombuffer((ctypes.c_char * end).from_address(t.data), np.uint8)
    return np.ndarray(shape, kind, bytes_, 0, strides)


class Operations:
    """Each operation of the oracle by the name of its value, on inputs that somebody else computed."""

    def __init__(self, model, ids):
        self.m, self.ids = model, ids
        model.positions, model.step, model.sequences = np.arange(len(ids)), False, []

    def compute(self, value, now):
        m, what, layer = self.m, tail(value), d.layer(value)
        if layer is None:
            return {"token_embd": lambda: m.embed(np.asarray(self.ids)), "inp_scaled": lambda: now["token_embd"] * m.embed_scale,
                    "output_norm": lambda: m.norm("output_norm", now[f"blk.{m.n_layer - 1}.ffn_out"]),
                    "logits": lambda: m.logits(now["output_norm"])}[value]()
        m.layer, blk = layer, f"blk.{layer}."
        before = f"blk.{layer - 1}.ffn_out" if layer else "inp_scaled" if m.gemma else "token_embd"
        rope, window = (m.rope_local, m.window) if m.is_local(layer) else (m.rope, 0)

        def heads(name, n):
            return now[blk + name].reshape(len(self.ids), n, -1)

        def turned(which, n):
            normed = f"attn_{which}_norm"
            return rope(heads(normed if blk + normed in now else f"attn_{which}", n), m.positions)

        inputs = {"attn_norm": before, "attn_q": "attn_norm", "attn_k": "attn_norm", "attn_v": "attn_norm", "attn_output": "attn",
                  "post_attention_norm": "attn_output", "ffn_norm": "attn_out", "ffn_gate": "ffn_norm", "ffn_up": "ffn_norm",
                  "ffn_down": "ffn_act", "post_ffw_norm": "ffn_down"}
        if what in inputs:
            x = now[inputs[what] if what == "attn_norm" else blk + inputs[what]]
            return (m.norm if what.endswith("norm") else m.linear)(value, x)
        branch = {"attn_out": "post_attention_norm" if m.gemma else "attn_output",
                  "ffn_out": "post_ffw_norm" if m.gemma else "ffn_down"}
        return {"attn_q_norm": lambda: m.norm(value, heads("attn_q", m.n_head)),
                "attn_k_norm": lambda: m.norm(value, heads("attn_k", m.n_head_kv)),
                "q_rope": lambda: turned("q", m.n_head), "k_rope": lambda: turned("k", m.n_head_kv),
                "attn": lambda: m.attend(heads("q_rope", m.n_head), heads("k_rope", m.n_head_kv),
                                         heads("attn_v", m.n_head_kv), 0, m.scale, window),
                "attn_out": lambda: m.add(value, now[before], now[blk + branch["attn_out"]]),
                "ffn_out": lambda: m.add(value, now[blk + "attn_out"], now[blk + branch["ffn_out"]]),
                "ffn_act": lambda: m.glu(now[blk + "ffn_gate"], now[blk + "ffn_up"])}[what]()


class Mutator(llamacpp.Recorder):
    """A recorder that changes the values for which change(value, now, rows) returns others."""

    def __init__(self, library, n_tokens, heads, change):
        super().__init__(library, 0, heads)
        self.change, self.now, self.moved = change, {}, set()

    def __call__(self, pointer, ask, data):
        seen = len(self.nodes)
        super().__call__(pointer, ask, data)
        if ask or self.failure or len(self.nodes) == seen:
            return True
        try:
            self.mutate(ctypes.cast(pointer, ctypes.POINTER(llamacpp.Tensor)).contents)
        except Exception as e:  # must not cross the C code
            self.failure = e
        return True

    def mutate(self, t):
        value, raw, op, rows = self.nodes[-1]
        if value is None:
            return
        with np.errstate(all="ignore"):
            other = self.change(value, self.now, rows)
        if other is not None:
            place = memory_of(t)
            place[...] = np.asarray(other).reshape(place.shape)
            before, rows = rows, llamacpp.rows_of(t)
            if not np.abs(rows - before).max() <= HALF * np.abs(before).max():
                self.moved.add(kind(value))
            self.nodes[-1] = (value, raw, op, rows)
        self.now[value] = rows.reshape(self.n_tokens, -1).astype(np.float64) if ".attn." not in value else rows


class Engine:
    """llama.cpp with one model."""

    def __init__(self, path):
        self.path, self.library = path, llamacpp.load_library(llama)
        self.model = llamacpp.load_model(llama, Path(path))
        self.heads = llamacpp.heads_of(llama, self.model)

    def run(self, ids, change, out, flash="auto"):
        """Writes the trace of a prompt; returns the logits, and the kinds of values that the change moved."""
        args = types.SimpleNamespace(flash_attn=flash, threads=2, ubatch_size=0, steps=0)
        recorder = Mutator(self.library, len(ids), self.heads, change)
        callback = llama.ggml_backend_sched_eval_callback(recorder)
        context = llamacpp.context_of(llama, self.model, len(ids), args, callback)
        with TraceWriter(out, {"name": "llama.cpp"}, {"file": Path(self.path).name}, ids, {"name": "llama.cpp"}) as writer:
            llamacpp.run(llama, context, ids, args, recorder, writer)
        llama.llama_free(context)
        return recorder.now["logits"], recorder.moved


def planted(faults, path, ids, like):
    """The change of several (fault, what plants it), each at its own operations."""
    parts = [(fault, Operations(Faulty(path, [plant], "q8", like), ids)) for fault, plant in faults]

    def change(value, now, rows):
        for fault, operations in parts:
            if tail(value) in fault.kinds and (not fault.layers or d.layer(value) in fault.layers):
                return operations.compute(value, now)
        return None
    return change


def kind(value):
    """The name within its layer: attn.probs of blk.3.attn.probs."""
    return value.split(".", 2)[2] if value.startswith("blk.") else value


def judge(name, moved, planted, out, path, count):
    """Adds to count[placed, exact] what diff says of a trace with faults in `planted`, which show in `moved`."""
    _, found = d.diff(out, "-m", path)
    differ = {kind(v) for v in found["differ"]}
    placed, exact = found["first"] is not None and kind(found["first"]) in planted, moved <= differ <= planted
    count["faults"] += 1
    count["placed"] += placed
    count["exact"] += exact
    if not (placed and exact):
        print(f"  {name}: first {found['first']}, marked {sorted(differ)}, expected {sorted(moved)}", flush=True)


def inner_faults(m):
    """{name: (value, change(rows, now, blk))} inside attention; rows are [heads, tokens, keys or dim]."""
    def softmax(s):
        e = np.exp(s - s.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def scores(now, blk, scale, hidden):
        s = now[blk + "attn.kq"].astype(np.float64) * scale
        q, k = np.arange(s.shape[1])[:, None], np.arange(s.shape[2])[None, :]
        return softmax(np.where(hidden(q, k) | (k >= s.shape[1]), -1e30, s))

    causal = lambda q, k: k > q  # noqa: E731
    return {
        "scores without the last quarter of each head": ("attn.kq", lambda r, now, blk: 0.75 * r),
        "scores of head 1 are those of head 0": ("attn.kq", lambda r, now, blk: np.concatenate([r[:1], r[:1], r[2:]])),
        "scores in bf16 with 4 bits": ("attn.kq", lambda r, now, blk: np.round(r * 2) / 2),
        "softmax without the scale": ("attn.probs", lambda r, now, blk: scores(now, blk, 1.0, causal)),
        "softmax of another width": ("attn.probs", lambda r, now, blk: scores(now, blk, m.dim**-0.5, causal)),
        "no causal mask": ("attn.probs", lambda r, now, blk: scores(now, blk, m.scale, lambda q, k: k < 0)),
        "the next token is seen": ("attn.probs", lambda r, now, blk: scores(now, blk, m.scale, lambda q, k: k > q + 1)),
        "a window of 4": ("attn.probs", lambda r, now, blk: scores(now, blk, m.scale, lambda q, k: (k > q) | (k <= q - 4))),
        "weights that sum to 0.9": ("attn.probs", lambda r, now, blk: 0.9 * r),
        "values of the first half of the heads": ("attn.kqv", lambda r, now, blk: np.concatenate([r[:len(r) // 2], 0 * r[len(r) // 2:]])),
        "heads in reverse order": ("attn.kqv", lambda r, now, blk: r[::-1]),
        "last token's sum is the first's": ("attn.kqv", lambda r, now, blk: np.concatenate([r[:, :-1], r[:, :1]], 1)),
    }


def one_model(path):
    r = subprocess.run([d.h.PLUMB, "tokenize", "-m", path, "-p", TEXT, "--ids"], capture_output=True, text=True, check=True)
    ids = json.loads(r.stdout)
    engine, right = Engine(path), Faulty(path, [], "q8")
    fit = [f for f in FAULTS.values() if f.fits(right)]
    counts = {key: dict.fromkeys(("faults", "placed", "exact"), 0) for key in ("inside attention", "pairs", "single")}
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "t"

        def attempt(name, kinds, change, key, flash="auto"):
            logits, moved = engine.run(ids, change, out, flash)
            if moved and not np.abs(logits - healthy).max() < 0.02 * np.abs(healthy).max():
                judge(name, moved & kinds, kinds, out, path, counts[key])
            subprocess.run(["rm", "-rf", str(out)])

        healthy, _ = engine.run(ids, lambda *_: None, out)
        _, found = d.diff(out, "-m", path)
        subprocess.run(["rm", "-rf", str(out)])
        print(f"{Path(path).stem}: unchanged {found['verdict']}, {len(found['values'])} values", flush=True)
        try:
            for name, (part, change) in inner_faults(right).items():
                def inner(value, now, rows, part=part, change=change):
                    at = f"blk.{d.layer(value)}."
                    return change(rows if rows.ndim == 3 else rows[None], now, at) if value.endswith("." + part) else None
                attempt(name, {part, "attn"}, inner, "inside attention", "off")
            rng = np.random.default_rng(5)
            pairs = [(a, b) for a in fit for b in fit if a.name < b.name and not a.kinds & b.kinds]
            for a, b in [pairs[i] for i in rng.choice(len(pairs), PAIRS, replace=False)]:
                attempt(f"{a.name} + {b.name}", a.kinds | b.kinds, planted([(a, a.plant), (b, b.plant)], path, ids, right), "pairs")
            for f in fit:
                attempt(f.name, f.kinds, planted([(f, f.plant)], path, ids, right), "single")
        finally:
            print(f"{Path(path).stem}:", *(f"{key} {c}" for key, c in counts.items()), sep="\n  ", flush=True)


def main():
    for path in sys.argv[1:] or [str(fetch.fetch(name)) for name in ("smollm2", "gemma")]:
        one_model(path)


if __name__ == "__main__":
    main()
