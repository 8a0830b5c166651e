"""What the model tests share: the command under test, the cache, oracle logits, and how two logits are compared.

The command is $PLUMB, else build/release/plumb. Oracle results are kept in the cache under the digest of everything
they come from: the oracle's sources, the model file, the ids.
"""

import functools
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(ROOT / "scripts")]

import fetch  # noqa: E402
import make_models  # noqa: E402
import numpy_model  # noqa: E402
from weights import Weights  # noqa: E402, F401

PLUMB = os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb")
CACHE = Path(os.environ.get("PLUMB_CACHE") or Path.home() / ".cache" / "plumb") / "oracle"

SHORT = {  # prompt ids, greedy continuation: both published with the models' first measurements
    "smollm2": ([19556, 905],
                [282, 260, 1774, 30, 198, 198, 57, 5248, 8916, 288, 2419, 957, 6008, 1391, 351, 260]),
    "gemma": ([2, 818, 5279, 529, 7001, 563], [506, 5279, 529, 506, 2891, 529]),
}
# rms error that a fresh rounding adds, numerics.md section 5: activations in int8 per 32; f16, which the KV cache is.
INT8, F16 = 0.0055, 0.00014


def whole_model_bound(n_layer, fresh):
    """numerics.md section 3: three times the expected rms of fast - ref64 over the rms of centred logits."""
    return 3.0 * fresh * math.sqrt(3.0 * (math.log(2.0 * n_layer) + 0.6))


def relative_max(y, oracle):
    """Largest difference over the rms of the oracle's logits."""
    assert y.shape == oracle.shape, (y.shape, oracle.shape)
    return float(np.max(np.abs(y - oracle)) / math.sqrt(np.mean(oracle * oracle)))


def relative_rms(y, oracle):
    """rms of the difference over the rms of the oracle's logits, each row less its mean."""
    assert y.shape == oracle.shape, (y.shape, oracle.shape)
    centred = oracle - oracle.mean(axis=-1, keepdims=True)
    return math.sqrt(np.mean((y - oracle)**2) / np.mean(centred**2))


def plumb(*arguments, isa=None, timeout=600):
    """Runs the command; returns its standard output. A failure shows the last line of standard error."""
    env = dict(os.environ)
    env.pop("PLUMB_ISA", None)
    if isa:
        env["PLUMB_ISA"] = isa
    command = [PLUMB, *map(str, arguments)]
    if not os.access(PLUMB, os.X_OK):
        raise AssertionError(f"{PLUMB} is not there: build it, or name the command in $PLUMB")
    result = subprocess.run(command, capture_output=True, env=env, timeout=timeout)
    if result.returncode != 0:
        last = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise AssertionError(f"{' '.join(command)} (PLUMB_ISA={isa}) ended with {result.returncode}: {last}")
    return result.stdout.decode()


def logits(model, ids=None, *flags, prompt=None, arith="fast", isa=None, all_positions=True, threads=2):
    """`plumb logits` as an array: [T, vocab], or [vocab] of the last position."""
    source = ["-p", prompt] if prompt is not None else ["--tokens", ",".join(map(str, ids))]
    with tempfile.NamedTemporaryFile(suffix=".npy") as out:
        plumb("logits", "-m", model, *source, "--arith", arith, *(["--all"] if all_positions else []),
              "-t", threads, *flags, "-o", out.name, isa=isa)
        y = np.load(out.name)
    expected = np.float64 if arith == "ref64" else np.float32
    assert y.dtype == expected, f"{arith}: expected {expected}, found {y.dtype}"
    return y


@functools.lru_cache(maxsize=1)
def oracle_model(path):
    """NumPy's model of a file; both oracles ask for one file after the other, and reading a vocabulary takes seconds."""
    return numpy_model.Model(path)


def stored(key, make):
    """The array that make() returns, kept in the cache under the digest of key and the oracle's sources."""
    digest = hashlib.sha256(json.dumps(key).encode())
    for name in ("weights.py", "numpy_model.py", "mlx_model.py", "make_models.py"):
        digest.update((HERE / name).read_bytes())
    path = CACHE / f"{digest.hexdigest()[:24]}.npy"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        value = make()
        with tempfile.NamedTemporaryFile(dir=CACHE, suffix=".part", delete=False) as out:
            np.save(out, value)
        os.replace(out.name, path)
    return np.load(path)


def oracle_logits(path, ids, key=None):
    """NumPy's f64 logits of every position. key: what names the file's content, else its SHA-256."""
    if key is None:
        with open(path, "rb") as stream:
            key = hashlib.file_digest(stream, "sha256").hexdigest()
    return stored(["numpy", key, ids], lambda: oracle_model(path).all_logits(ids))


def mlx_logits(path, ids, key, llama3=None):
    """mlx-lm's f32 logits of every position."""
    def make():
        import mlx_model
        return mlx_model.all_logits(oracle_model(path).w, ids, llama3)
    return stored(["mlx", key, ids], make)


def real_model(name):
    """The path of a real model and the digest that names it."""
    return str(fetch.fetch(name)), fetch.FILES[name]["sha256"]


def small_models():
    """[(case, path)] of every random model, made once per version of the generator."""
    source = hashlib.sha256((HERE / "make_models.py").read_bytes()).hexdigest()[:12]
    paths = make_models.write_small(CACHE / f"small-{source}")
    return [(c, str(paths[c.name])) for c in make_models.cases()]


def small_prompt(n=24):
    """Ids below every small vocabulary's size; longer than each window."""
    return [1] + [int(i) for i in np.random.default_rng(5).integers(3, make_models.VOCAB, n - 1)]


def golden(name):
    """[{text, ids, greedy, margin}] of tests/golden/greedy_NAME.txt."""
    entries = []
    for line in (ROOT / "tests" / "golden" / f"greedy_{name}.txt").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == "text":
            entries.append({})
        if key in ("ids", "greedy"):
            entries[-1][key] = [int(i) for i in value.split(",")]
        elif key in ("text", "margin"):
            entries[-1][key] = json.loads(value)
    return entries


def isas():
    """(those this CPU has, those it lacks) of the instruction sets that PLUMB_ISA names."""
    flags = set()
    if platform.machine() == "x86_64":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags = set(line.split())
                break
    needs = {"avx2": {"avx2", "fma", "f16c"},
             "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512_vnni"}}
    present = ["scalar"] + [isa for isa, needed in needs.items() if needed <= flags]
    return present, [isa for isa in needs if isa not in present]
