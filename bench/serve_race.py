"""./dev bench serve LLAMA_SERVER [...]: total tokens per second of `plumb serve` with 1 and 8 streams, beside llama-server -np 8 on the same file.

Both servers are started once; each round asks both, with 1 and with 8 streams, in an order by lot, for answers of the same length
to the same short prompts, greedy, without anything cached. Prints the medians, and the medians of the rounds' ratios with their
bootstrap intervals of 95 %. Only ratios within a round count: the machine's speed changes, and what else runs on it.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "bench")]

import fetch  # noqa: E402
import rivals  # noqa: E402


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, name, command, port):
        self.name, self.port = name, port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.send("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"race: {name} does not answer: {command}")

    def send(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        c.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        r = c.getresponse()
        return r.status, json.loads(r.read())

    def answer(self, i, tokens, temperature):
        status, found = self.send("POST", "/v1/completions", {
            "prompt": f"Story number {i}. Once upon a time there was a", "max_tokens": tokens, "ignore_eos": True, "temperature": temperature, "seed": i + 1,
            "cache_prompt": False})
        assert status == 200 and found["usage"]["completion_tokens"] == tokens, found
        return tokens

    def rate(self, streams, tokens, temperature):
        with concurrent.futures.ThreadPoolExecutor(streams) as pool:
            begin = time.monotonic()
            total = sum(pool.map(lambda i: self.answer(i, tokens, temperature), range(streams)))
            return total / (time.monotonic() - begin)


def interval(ratios):
    middle, low, high = rivals.bootstrap(ratios)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_server", nargs="?", help="a built llama-server; without it plumb alone")
    parser.add_argument("--plumb", default=os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb"))
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("-t", "--threads", default="2")
    args = parser.parse_args()
    model = args.model or str(fetch.fetch("smollm2"))
    slots = str(args.streams)
    plumb, llama = free_port(), free_port()
    servers = [Server("plumb", [args.plumb, "serve", "-m", model, "--port", str(plumb), "-np", slots, "-c", "512", "-t", args.threads], plumb)]
    if args.llama_server:
        servers.append(Server("llama-server", [args.llama_server, "-m", model, "--port", str(llama), "-np", slots, "-c", str(512 * args.streams), "-t",
                                               args.threads, "-tb", args.threads, "--no-webui"], llama))
    try:
        rounds = []
        for r in range(args.rounds + 1):
            rates = {}
            for server, n in random.sample([(s, n) for s in servers for n in (1, args.streams)], 2 * len(servers)):
                rates[server.name, n] = server.rate(n, args.tokens, args.temperature)
            if r > 0:  # the first warms up
                rounds.append(rates)
                print("  ".join(f"{name} {n}: {rates[name, n]:.0f}" for name, n in sorted(rates)), flush=True)
        for name, n in sorted(rounds[0]):
            print(f"{name}, {n} streams: {statistics.median(r[name, n] for r in rounds):.0f} tokens/s")
        for s in servers:
            print(f"{s.name}: {args.streams} streams over one: {interval([r[s.name, args.streams] / r[s.name, 1] for r in rounds])}")
        if args.llama_server:
            for n in (1, args.streams):
                print(f"plumb over llama-server, {n} streams: {interval([r['plumb', n] / r['llama-server', n] for r in rounds])}")
    finally:
        for s in servers:
            s.process.terminate()
            try:
                s.process.wait(timeout=60)
            except subprocess.TimeoutExpired:  # llama-server hangs at times
                s.process.kill()


if __name__ == "__main__":
    main()
