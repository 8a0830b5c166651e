"""./dev bench: `plumb bench` on SmolLM2. ./dev bench LLAMA_BENCH [...]: a quick race against that program.
./dev bench serve [LLAMA_SERVER], ./dev bench load: bench/serve_race.py, bench/serve_load.py.
./dev bench rivals [...]: races `plumb bench` against llama.cpp, or any other program with llama-bench's flags, by ratios.

Builds llama.cpp from the source package llama-cpp-python once (in the cache folder; --llama-bin DIR takes a built one),
compares both engines' probabilities on a text first, finds the rival's best setting per test in a scouting round, then
runs rounds of plumb, rival, rival, plumb (or the other way round) and prints the median of the rounds' ratios with a
bootstrap interval of 95 %. Method: docs/performance.md. Results are appended to bench/ratios.csv.
"""

import argparse
import csv
import datetime
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts")]

import fetch  # noqa: E402

CACHE = Path(os.environ.get("PLUMB_CACHE") or Path.home() / ".cache" / "plumb")
RATIOS = ROOT / "bench" / "ratios.csv"
COLUMNS = ["date", "cpu", "threads", "plumb", "rival", "rival_version", "setting", "model", "test", "act", "ratio", "low",
           "high", "share_of_limit", "rounds", "dropped"]
PROGRAMS = ["llama-bench", "llama-perplexity", "llama-quantize"]


def build_llama_cpp():
    """The folder of llama.cpp's programs, built natively from the source package when it is not there yet."""
    target = CACHE / "llama.cpp-0.3.36"
    if all((target / "bin" / p).exists() for p in PROGRAMS):
        return target / "bin"
    with tempfile.TemporaryDirectory(prefix=".rivals-", dir=CACHE) as work:
        stub = Path(work) / "stub" / "scikit_build_core"
        stub.mkdir(parents=True)
        (stub / "__init__.py").touch()
        (stub / "build.py").write_text(fetch.STUB_BACKEND)
        (Path(work) / "sdist").mkdir()
        package = fetch.pip_download(fetch.LLAMA_CPP, Path(work) / "sdist", ["--no-binary", ":all:", "--no-build-isolation"],
                                     dict(os.environ, PYTHONPATH=str(stub.parent)))
        with tarfile.open(package) as archive:
            archive.extractall(work, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # from Python 3.11.4 on
        source = next(Path(work).glob("llama_cpp_python*/vendor/llama.cpp"))
        options = ["CMAKE_BUILD_TYPE=Release", "GGML_NATIVE=ON", "LLAMA_CURL=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_TESTS=OFF",
                   "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_SERVER=OFF", "LLAMA_BUILD_TOOLS=ON", "BUILD_SHARED_LIBS=OFF"]
        subprocess.run(["cmake", "-G", "Ninja", "-S", source, "-B", f"{work}/build", *(f"-D{o}" for o in options)], check=True,
                       stdout=sys.stderr)
        subprocess.run(["cmake", "--build", f"{work}/build", "--target", *PROGRAMS], check=True, stdout=sys.stderr)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(f"{work}/build/bin", target / "bin")
    return target / "bin"


def divergence(args, model, bin_folder):
    """Mean and median KL divergence of plumb's probabilities from llama.cpp's on 63 positions of a text."""
    import numpy as np
    n = 128
    with tempfile.TemporaryDirectory() as work:
        text = Path(work) / "text"
        text.write_text((ROOT / "docs" / "numerics.md").read_text() * 2)
        base = Path(work) / "base"
        subprocess.run([bin_folder / "llama-perplexity", "-m", model, "-f", text, "-c", str(n), "-b", str(n), "--chunks", "1", "-t",
                        str(args.threads), "--no-repack", "--kl-divergence-base", base], check=True, capture_output=True)
        data = base.read_bytes()
        n_ctx, n_vocab, chunks = np.frombuffer(data, "<i4", 3, 8)
        tokens = np.frombuffer(data, "<i4", n_ctx * chunks, 20)[:n_ctx].copy()
        width = 2 * ((n_vocab + 1) // 2) + 4
        rows = np.frombuffer(data, "<u2", offset=20 + 4 * n_ctx * chunks).reshape(-1, width)
        first = n_ctx // 2
        info = json.loads(subprocess.run([args.plumb, "inspect", "--json", model], check=True, capture_output=True).stdout)
        special, flags = info["tokenizer"]["special"], info["tokenizer"]["flags"]
        if flags.get("add_bos_token", info["tokenizer"]["model"] == "llama"):
            tokens[0] = special["bos"]["id"]  # the file keeps the text's token there
        out = Path(work) / "logits.npy"
        subprocess.run([args.plumb, "logits", "-m", model, "--tokens", ",".join(map(str, tokens)), "--all", "-o", out, "-t",
                        str(args.threads)], check=True, capture_output=True)
        ours = np.load(out)[first:first + len(rows)].astype(np.float64)
    ours -= ours.max(axis=1, keepdims=True)
    ours -= np.log(np.exp(ours).sum(axis=1, keepdims=True))
    header = rows[:, :4].copy().view("<f4").astype(np.float64)
    theirs = header[:, 1:2] + header[:, 0:1] * rows[:, 4:4 + n_vocab]
    known = rows[:, 4:4 + n_vocab] > 0  # the file raises what lies 16 below the likeliest to that floor
    each = (np.exp(theirs) * (theirs - ours) * known).sum(axis=1)
    return float(each.mean()), float(np.median(each))


def steal_ticks():
    values = [int(v) for v in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return values[7], sum(values)


def run(program, model, test, args, more):
    """The result of one test with one repetition, and the share of time that was stolen meanwhile."""
    kind, n = re.fullmatch(r"(pp|tg)(\d+)", test).groups()
    count = ["-p", n, "-n", "0"] if kind == "pp" else ["-p", "0", "-n", n]
    before = steal_ticks()
    r = subprocess.run([*map(str, program), "-m", model, *count, "-r", "1", "-t", str(args.threads), "-o", "json", *more],
                       capture_output=True, text=True)
    after = steal_ticks()
    if r.returncode != 0:
        return None, 0
    result = json.loads(r.stdout[r.stdout.index("["):])[0]
    return result, (after[0] - before[0]) / max(1, after[1] - before[1])


def settings_of(program, name):
    """Extra arguments of the rival to try: what its help says that it knows."""
    r = subprocess.run([program, "--help"], capture_output=True, text=True)
    known = r.stdout + r.stderr
    axes = [["-fa", "0"], ["-fa", "1"]] if "-fa," in known else [[]]
    for flag in ("--repack", "-rtr"):
        if re.search(rf"{flag}\b", known):
            axes = [a + [flag, v] for a in axes for v in ("0", "1")]
    return axes


def bootstrap(ratios, draws=10000):
    """Median and its 95 % interval."""
    medians = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(draws))
    return statistics.median(ratios), medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def race(args, model, test, program, setting):
    """By activation policy of plumb: (ratios of the rounds that count, shares of the limit, rounds dropped)."""
    acts = args.act.split(",") if args.act else [""]
    rounds = []
    for _ in range(args.rounds):
        half = random.sample([*acts, None], len(acts) + 1)  # None: the rival
        rates, shares, probes, steals = {who: [] for who in half}, {who: [] for who in acts}, [], []
        for who in half + half[::-1]:
            ours = [args.plumb, "bench", *(["--act", who] if who else [])]
            result, steal = run([program] if who is None else ours, model, test, args, setting if who is None else [])
            if result is None:
                sys.exit(f"rivals: {program if who is None else 'plumb'} failed on {model} {test} {setting}")
            rates[who].append(result["avg_ts"])
            steals.append(steal)
            if who is not None:
                shares[who].append(result["limit_share"])
                probes.append(result["read_now_gb_per_s" if test.startswith("tg") else "int8_now_gmac_per_s"])
        mean = {who: statistics.mean(rates[who]) for who in half}
        rounds.append(({who: mean[who] / mean[None] for who in acts}, {who: statistics.mean(shares[who]) for who in acts},
                       statistics.mean(probes), max(steals)))
    usual = statistics.median(r[2] for r in rounds)
    kept = [r for r in rounds if abs(r[2] / usual - 1) <= args.steady and r[3] <= args.steal]
    return {who: ([r[0][who] for r in kept], [r[1][who] for r in kept], len(rounds) - len(kept)) for who in acts}


def best_setting(args, model, test, program):
    """(rate, setting, result) of the rival's fastest setting: the best of some interleaved runs of each."""
    settings = settings_of(program, test) * args.scout if args.setting is None else [args.setting.split()]
    tried = [(run([program], model, test, args, s)[0], s) for s in settings]
    for setting in {tuple(s) for result, s in tried if result is None}:
        print(f"  scouting {Path(model).stem} {test}: {program} fails with {' '.join(setting)}", flush=True)
    best = {}
    for result, setting in tried:
        if result and result["avg_ts"] > best.get(tuple(setting), (0,))[0]:
            best[tuple(setting)] = (result["avg_ts"], setting, result)
    tried = list(best.values())
    if not tried:
        sys.exit(f"rivals: {program} runs none of its settings on {model}")
    for rate, setting, _ in sorted(tried, key=lambda t: -t[0]):
        print(f"  scouting {Path(model).stem} {test}: {rate:9.2f} t/s {' '.join(setting)}", flush=True)
    return max(tried, key=lambda t: t[0])


def append(row):
    new = not RATIOS.exists()
    with RATIOS.open("a", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def compete(args, name, program):
    for model in args.models.split(","):
        for test in args.tests.split(","):
            _, setting, result = best_setting(args, model, test, program)
            for act, (ratios, shares, dropped) in race(args, model, test, program, setting).items():
                if not ratios:
                    print(f"{Path(model).stem} {test} against {name}: all {dropped} rounds were disturbed", flush=True)
                    continue
                median, low, high = bootstrap(ratios)
                share = statistics.median(shares)
                print(f"{Path(model).stem} {test} {act} against {name} {' '.join(setting)}: {median:.3f} [{low:.3f}, "
                      f"{high:.3f}], {share:.0%} of the limit, {len(ratios)} rounds, {dropped} dropped", flush=True)
                append(dict(zip(COLUMNS, [datetime.date.today().isoformat(), result.get("cpu_info", ""), args.threads,
                                          args.version, name, result.get("build_commit", ""), " ".join(setting),
                                          Path(model).stem, test, act, f"{median:.3f}", f"{low:.3f}", f"{high:.3f}",
                                          f"{share:.3f}", len(ratios), dropped])))


def parse(arguments):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", help="GGUF files, separated by commas; default: SmolLM2")
    p.add_argument("--tests", default="pp512,tg128")
    p.add_argument("--rounds", type=int, default=10)
    p.add_argument("--scout", type=int, default=3, help="runs of each of the rival's settings before the rounds")
    p.add_argument("--setting", help="the rival's arguments, such as '-fa 1 --repack 0', where they are known: nothing is scouted")
    p.add_argument("--steady", type=float, default=0.1, help="rounds whose probe is further than this off the median are dropped")
    p.add_argument("--steal", type=float, default=0.02, help="so are rounds in which more of the machine's time was stolen")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--act", default="", help="activation policies of plumb to race, separated by commas")
    p.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's built programs; default: build them")
    p.add_argument("--rival", action="append", default=[], metavar="NAME=LLAMA_BENCH", help="another llama-bench to race")
    p.add_argument("--no-llama", action="store_true", help="race only the programs of --rival")
    p.add_argument("--max-kld", type=float, default=0.02, help="the engines compute the same below this median divergence")
    p.add_argument("--no-check", action="store_true", help="skip that comparison")
    p.add_argument("--plumb", default=str(ROOT / "build" / "release" / "plumb"))
    return p.parse_args(arguments)


def main():
    plumb = str(ROOT / "build" / "release" / "plumb")
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(subprocess.run([plumb, "bench", "-m", fetch.fetch("smollm2")]).returncode)
    if arguments[0] in ("serve", "load"):
        sys.exit(subprocess.run([sys.executable, ROOT / "bench" / f"serve_{'race' if arguments[0] == 'serve' else 'load'}.py",
                                 *arguments[1:]]).returncode)
    if arguments[0] == "rivals":
        arguments = arguments[1:]
    elif not arguments[0].startswith("-"):
        arguments = ["--no-llama", "--no-check", "--rival", "rival=" + arguments[0], *arguments[1:]]
    args = parse(arguments)
    args.models = args.models or str(fetch.fetch("smollm2"))
    args.version = subprocess.run([args.plumb, "--version"], capture_output=True, text=True).stdout.split()[-1]
    need_llama = not args.no_llama or not args.no_check
    folder = (args.llama_bin or build_llama_cpp()) if need_llama else None
    for model in [] if args.no_check else args.models.split(","):
        mean, median = divergence(args, model, folder)
        print(f"{Path(model).stem}: KL divergence from llama.cpp: mean {mean:.2e}, median {median:.2e}", flush=True)
        if not math.isfinite(mean) or median > args.max_kld:
            sys.exit(f"rivals: {model}: the engines do not compute the same; at most {args.max_kld} was expected")
    if not args.no_llama:
        compete(args, "llama.cpp", folder / "llama-bench")
    for rival in args.rival:
        name, _, program = rival.partition("=")
        compete(args, name, Path(program))


if __name__ == "__main__":
    main()
