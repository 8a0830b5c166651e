"""Which cases the benchmark consists of: a seeded list, the same for the same seed and models.

A case says the model, the engine, the planted faults with their numbers, the prompt, and for each fault the catalogue's ids that are
right answers. Cases with an empty answer are `benign` or `outside`.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "oracle"), str(ROOT / "scripts")]

from faults import FAULTS  # noqa: E402
from faults_bytes import BYTES  # noqa: E402
from faults_inner import INNER  # noqa: E402
from faults_more import MORE  # noqa: E402
from faults_steps import STEPS  # noqa: E402
from outside import OUTSIDE  # noqa: E402

# Of faults.py: answers that the name does not give, and what belongs to no entry of the catalogue.
ANSWERS = {
    "A5 only some matrices read by columns": ["A5b"], "D14 residual of attention missing": ["D14"],
    "D14 residual added twice": ["D14e"], "F12 rotation of k missing": ["F12b"], "I3 SiLU for GELU": ["I3b"],
    "I4 quick GELU": ["I4b"], "D10 weights of attn_norm and ffn_norm exchanged": ["D10"],
    "I1 gate and up exchanged": ["I1b"], "I1 activation on the wrong side": ["I1"],
}
NOT_IN_CATALOGUE = {
    "A11 layers 0 and 1 exchange their feed-forward weights", "A10 only the first half of a matrix decoded", "A14 one tensor is zero",
    "B2 offset of the codes missing", "B3 minimum ignored", "B1 halves of each block interleaved", "B8 codes unsigned",
    "B16 only 32 of each 128 elements decoded", "D8 weight applied twice", "D9 weight of ffn_norm not applied",
    "E9 heads merged in reverse order",
}
LEFT_OUT = {  # made better elsewhere, or with numbers that the catalogue's ranges do not hold
    "C5 absolute positions added", "D1 eps is 0.3", "D2 eps outside the root", "D4 LayerNorm", "D15 stream clipped",
    "F3 rope base 50 times larger", "F5 positions stretched by 2", "F6 magnitude of the rotation", "G8 window of 4 tokens",
    "G11 soft-cap of scores", "J4 logits scaled", "G7 the next token is seen",
}
SINGLE = {n: f for n, f in FAULTS.items() if n not in NOT_IN_CATALOGUE | LEFT_OUT}
SINGLE |= {f"{n}." if n in SINGLE else n: f for part in (MORE, INNER, BYTES, STEPS) for n, f in part.items()}
BEYOND = OUTSIDE | {n: FAULTS[n] for n in NOT_IN_CATALOGUE}
PLANTED = SINGLE | BEYOND

CHAT = {  # text around a question
    "llama": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "gemma3": "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
}
QUESTIONS = ("What is the capital of France and why?", "Write a short poem about the sea at night.",
             "How many legs does a spider have?", "Explain in one sentence why the sky is blue.",
             "List three colours of the rainbow.", "Count from 7 to 12, please.", "Who wrote the play Hamlet?")
CALLBACK = "llama.cpp callback"  # its evaluation callback puts the oracle's faulty output in the place of an operation's
RANDOM = ("llama-Q4_0", "llama-Q8_0", "llama-Q4_K", "llama-Q6_K", "llama-Q5_0", "qwen2-Q8_0", "qwen3-Q8_0", "gemma3-Q8_0")


def seeded(*words):
    return np.random.default_rng(int.from_bytes(hashlib.sha256(json.dumps(words).encode()).digest()[:8], "little"))


def answers(name):
    return ANSWERS.get(name) or ([] if name in BEYOND else [name.split()[0]])


def is_step(name):
    return name in STEPS


def order(case):
    """The benchmark's order of cases: any beginning of it is a fair sample."""
    return float(seeded("order", case["id"]).random())


def short(name):
    """A fault's word in the id of a case: the right answer, with a number where several faults have it."""
    if name in BEYOND:
        return ("near-" if name in FAULTS else "") + name.split()[0]
    word = answers(name)[0]
    same = [n for n in SINGLE if answers(n) == [word]]
    return word + (f".{same.index(name)}" if name in same[1:] else "")


def case(group, model, kind, engine, faults=(), numbers=(), prompt=0):
    word = "+".join(map(short, faults)) or "healthy"
    return {"id": f"{group}/{kind}/{word}-{engine.replace(' ', '-')}-p{prompt}", "group": group, "model": model, "kind": kind,
            "engine": engine, "faults": list(faults), "numbers": list(numbers), "answers": [answers(n) for n in faults],
            "prompt": prompt}


def drawn(seed, names, *words):
    """Numbers of the faults that have one."""
    return [PLANTED[n].values(seeded(seed, n, *words)) if PLANTED[n].values else None for n in names]


def lesser(case):
    """What a case must differ from: its model without faults; a pair from each of its two faults alone."""
    if case["kind"] != "pair":
        return [case | {"faults": [], "numbers": []}]
    return [case | {"faults": [case["faults"][i]], "numbers": [case["numbers"][i]]} for i in (0, 1)]


def singles(seed, group, model, fitting, share):
    """Each fault once in q8; a share of them in bf16, in f32, and with the other prompts; in llama.cpp what can be put in place."""
    for name in fitting:
        yield case(group, model, "single", "q8", [name], drawn(seed, [name]))
        for engine, prompt in (("bf16", 0), ("f32", 0), ("q8", 1), ("q8", 2)):
            if seeded(seed, group, name, engine, prompt).random() < share:
                yield case(group, model, "single", engine, [name], drawn(seed, [name], engine, prompt), prompt)
        if share and name in FAULTS:  # whole operations of the prompt
            yield case(group, model, "single", CALLBACK, [name], drawn(seed, [name], CALLBACK))


def pairs(seed, group, model, fitting, count):
    """Two faults of different operations, both of the prompt."""
    rng, taken = seeded(seed, group, "pairs"), set()
    usable = [n for n in fitting if not is_step(n) and n[0] in "ACDEFGIJB" and not n.startswith(("J2", "L3", "A8", "A6", "I6 "))]
    while len(taken) < count and len(usable) > 2:
        a, b = sorted(rng.choice(len(usable), 2, replace=False))
        a, b = usable[a], usable[b]
        if (a, b) in taken or a[0] == b[0] or PLANTED[a].kinds & PLANTED[b].kinds:
            continue
        taken.add((a, b))
        yield case(group, model, "pair", "q8", [a, b], drawn(seed, [a, b], "pair"), int(rng.integers(2)))


def benign(group, model, small=False):
    for engine in ("f64", "f32", "f16", "bf16", "q8"):
        for prompt in ((0, ) if small else (0, 1, 2)):
            yield case(group, model, "benign", engine, prompt=prompt)
    for engine in ("llama.cpp", "llama.cpp -fa off", "llama.cpp -t 1", "llama.cpp -ub 1", "plumb fast", "plumb --act 8",
                   "plumb --act 16", "plumb --arith ref32", "mlx f32", "mlx bf16") if not small else ("llama.cpp", "plumb fast"):
        yield case(group, model, "benign", engine)


def texts(group, model, arch):
    """Ids that are not those of the text: family K."""
    kinds = ["K2 two BOS", "K3 EOS appended", "K4 no template", "K4b turn missing", "K5 control tokens as text",
             "K7 line breaks are spaces", "K7b last token lost"]
    for name in kinds + (["K1b a BOS for nothing"] if arch == "llama" else ["K1 no BOS"]):
        yield case(group, model, "text", "q8", [name])


def poisons(plumb, seed, group, model):
    """Poisoned files, all in llama.cpp and a share in MLX."""
    known = json.loads(subprocess.run([plumb, "faults", "list", "--json"], capture_output=True, text=True, check=True).stdout)
    for entry in known["faults"] if isinstance(known, dict) else known:
        if entry["poison"] and not entry["control"] and not entry["id"].startswith("K"):
            for engine in ("llama.cpp", "mlx f32") if seeded(seed, group, entry["id"], "mlx").random() < 0.25 else ("llama.cpp", ):
                yield case(group, model, "poison", engine, [entry["id"] + " poisoned"]) | {"first": entry["first"]}


def plan(seed, group, path, base, plumb):
    """All cases of one model. base: its Faulty, for what fits."""
    fitting = [n for n, f in SINGLE.items() if f.fits(base)]
    beyond = [n for n, f in BEYOND.items() if f.fits(base)]
    real = group in ("smollm2", "gemma")
    yield from singles(seed, group, path, fitting if real else
                       [n for n in fitting if seeded(seed, group, n).random() < 0.3], 0.15 if real else 0)
    yield from pairs(seed, group, path, fitting, {"smollm2": 40, "gemma": 20}.get(group, 3))
    for name in beyond if real else beyond[::6]:
        yield case(group, path, "outside", "q8", [name])
        if real and seeded(seed, name).random() < 0.3:
            yield case(group, path, "outside", "bf16", [name], prompt=1)
    yield from benign(group, path, not real)
    if real:
        yield from texts(group, path, base.w.arch)
        yield from poisons(plumb, seed, group, path)
