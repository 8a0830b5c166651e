"""Samplers against llama.cpp's: the same settings must leave the same tokens with the same probabilities.

    python3 bench/samplers.py [--cases 200] [--model MODEL.gguf]      # a Python with llama-cpp-python

A server of ours is asked for `post_sampling_probs` of one token; llama.cpp's samplers get the logits that `plumb logits` gives
for the same ids, through the library's own functions. Prints how many cases of each filter were equal.
"""

import argparse
import collections
import ctypes
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts")]

import fetch  # noqa: E402
import numpy as np  # noqa: E402
from llama_cpp import llama_cpp as llama  # noqa: E402

PLUMB = os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb")
TOP = 20  # probabilities that a server gives at most
CLOSE = 2e-3  # relative: llama.cpp adds tens of thousands of probabilities up in f32
BREAKERS = ["\n", ":", '"', "*", "The end", "a b"]
TEXTS = ["the cat sat on the mat. the cat sat on the", "a b c d a b c d a b", "1: one\n2: two\n1: one\n2:", "The end. The end. The",
         "Hello world\n", "red green blue red green blue red", '"x" "x" "x"', "* a b * a b *"]


def filters(r):
    """A random setting: (name of the filter, fields of the request, function that makes llama.cpp's sampler)."""
    p, n = round(r.uniform(0.05, 1), 2), round(r.uniform(0.1, 2), 2)
    base, length = round(r.uniform(1, 2), 2), r.randrange(0, 4)
    last = r.choice([-1, 8, 64])
    breakers = r.sample(BREAKERS, r.randrange(0, 4))
    t, delta, power = round(r.uniform(0.3, 2), 2), round(r.uniform(0, 1), 2), round(r.uniform(0.5, 2), 2)
    threshold = round(r.uniform(0.01, 0.4), 2)

    def dry(vocab):
        words = (ctypes.c_char_p * len(breakers))(*[b.encode() for b in breakers])
        return llama.llama_sampler_init_dry(vocab, n, base, length, last if last > 0 else 4096, words, len(breakers))

    return r.choice([
        ("typ_p", {"typical_p": p}, lambda _: llama.llama_sampler_init_typical(p, 1)),
        ("top_n_sigma", {"top_n_sigma": n}, lambda _: llama.llama_sampler_init_top_n_sigma(n)),
        ("top_p", {"top_p": p}, lambda _: llama.llama_sampler_init_top_p(p, 1)),
        ("min_p", {"min_p": p / 5}, lambda _: llama.llama_sampler_init_min_p(p / 5, 1)),
        ("xtc", {"xtc_probability": 1, "xtc_threshold": threshold}, lambda _: llama.llama_sampler_init_xtc(1, threshold, 1, 1)),
        ("dry", {"dry_multiplier": n, "dry_base": base, "dry_allowed_length": length, "dry_penalty_last_n": last,
                 "dry_sequence_breakers": breakers}, dry),
        ("penalties", {"repeat_penalty": 1 + p, "frequency_penalty": n - 1, "presence_penalty": delta, "repeat_last_n": 64},
         lambda v: llama.llama_sampler_init_penalties(llama.llama_vocab_n_tokens(v), 64, 1 + p, n - 1, delta)),
        ("temperature", {"temperature": t, "dynatemp_range": delta, "dynatemp_exponent": power},
         lambda _: llama.llama_sampler_init_temp_ext(t, delta, power)),
        ("mirostat", {"mirostat": 2, "mirostat_tau": n * 2}, lambda _: llama.llama_sampler_init_mirostat_v2(1, n * 2, 0.1)),
        ("mirostat", {"mirostat": 1, "mirostat_tau": n * 2},
         lambda v: llama.llama_sampler_init_mirostat(llama.llama_vocab_n_tokens(v), 1, n * 2, 0.1, 100)),
    ])


def theirs(logits, ids, make, vocab):
    """{id: probability} that llama.cpp's sampler leaves, the likeliest."""
    data = (llama.llama_token_data * len(logits))()
    for i, x in enumerate(logits):
        data[i].id, data[i].logit, data[i].p = i, x, 0
    array = llama.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    sampler = make(vocab)
    for i in ids:
        llama.llama_sampler_accept(sampler, i)
    llama.llama_sampler_apply(sampler, ctypes.byref(array))
    llama.llama_sampler_free(sampler)
    left = {array.data[i].id: array.data[i].logit for i in range(array.size) if np.isfinite(array.data[i].logit)}
    most = max(left.values())
    weights = {i: float(np.exp(np.float64(x) - most)) for i, x in left.items()}
    total = sum(weights.values())
    return {i: w / total for i, w in sorted(weights.items(), key=lambda e: -e[1])[:TOP]}


class Ours:
    def __init__(self, model):
        self.model, self.logits = model, {}
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.server = subprocess.Popen([PLUMB, "serve", "-m", model, "--port", str(self.port)], stderr=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL)
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health")
                return
            except OSError:
                time.sleep(0.2)

    def ids(self, text):
        return self.ask("tokenize", {"content": text})["tokens"]

    def ask(self, route, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{route}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))

    def logits_of(self, ids):
        if tuple(ids) not in self.logits:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "logits.npy"
                subprocess.run([PLUMB, "logits", "-m", self.model, "--tokens", ",".join(map(str, ids)), "-o", out], check=True,
                               capture_output=True)
                self.logits[tuple(ids)] = np.load(out).reshape(-1)
        return self.logits[tuple(ids)]

    def left(self, ids, name, fields):
        off = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "samplers": [] if name == "mirostat" else [name]}
        answer = self.ask("completion", {"prompt": ids, "n_predict": 1, "n_probs": TOP, "post_sampling_probs": True, **off, **fields})
        return {t["id"]: t["prob"] for t in answer["completion_probabilities"][0]["top_probs"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cases", type=int, default=200)
    p.add_argument("--model", default=str(fetch.fetch("smollm2")))
    args = p.parse_args()
    parameters = llama.llama_model_default_params()
    parameters.vocab_only = True
    model = llama.llama_model_load_from_file(args.model.encode(), parameters)
    vocab = llama.llama_model_get_vocab(model)
    ours, r, counts = Ours(args.model), random.Random(1), collections.defaultdict(lambda: [0, 0])
    try:
        for _ in range(args.cases):
            ids = ours.ids(r.choice(TEXTS))
            name, fields, make = filters(r)
            mine, other = ours.left(ids, name, fields), theirs(ours.logits_of(ids), ids, make, vocab)
            same = mine.keys() == other.keys() and all(abs(mine[i] - other[i]) <= CLOSE * other[i] + 1e-12 for i in mine)
            counts[name][not same] += 1
            if not same:
                print("differs:", name, fields, ids, "ours", list(mine.items())[:4], len(mine), "theirs", list(other.items())[:4],
                      len(other), flush=True)
    finally:
        ours.server.terminate()
    for name, (equal, different) in sorted(counts.items()):
        print(f"{name:12} {equal:4} equal, {different} different")
    sys.exit(any(different for _, different in counts.values()))


if __name__ == "__main__":
    main()
