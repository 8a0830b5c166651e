"""./dev bench load [...]: `plumb serve` under clients that behave badly, on this machine's own loopback, for a bounded time.

Streams that disconnect at random run all the time; while they do, slow heads, huge bodies and bad values of every numeric field
of /openapi.json come and go. Asked of the server: only 200, 4xx and 429; /health within 50 ms at the 99th percentile; memory,
descriptors and threads flat; every answer that was read to its end equal to the one that its request got alone; slots free
within a second at the end. Prints a line for each and ends with status 1 where one fails.
"""

import argparse
import asyncio
import collections
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts")]

import fetch  # noqa: E402

JSON_HEAD = "Host: localhost\r\nContent-Type: application/json\r\n"
HUGE_HEAD = f"POST /v1/completions HTTP/1.1\r\n{JSON_HEAD}"


class Server:
    def __init__(self, args):
        self.process = subprocess.Popen([args.plumb, "serve", "-m", args.model, "--port", "0", "-c", "512", "-np", str(args.slots), "--queue",
                                         str(args.queue), "--cache-ram", "64", "--metrics"], stderr=subprocess.PIPE, text=True)
        self.port = next(int(m[1]) for line in self.process.stderr if (m := re.search(r"http://[\w.]+:(\d+)", line)))

    def usage(self):
        """KiB of memory that is neither file nor shared, descriptors, threads."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if ":" in line)
        kib = sum(int(status[k].split()[0]) for k in ("RssAnon", "VmSwap"))
        return kib, len(os.listdir(f"/proc/{self.process.pid}/fd")), int(status["Threads"])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


async def ask(port, path, body, leave_after=None):
    """Status and text of a POST, or of a GET where there is no body; None for the text if we left after so many reads."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        method = "GET" if body is None else "POST"
        writer.write(f"{method} {path} HTTP/1.1\r\n{JSON_HEAD}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 120)).decode()
        status, chunked = int(head.split()[1]), "chunked" in head.lower()
        parts = []
        while not (leave_after is not None and len(parts) >= leave_after):
            if chunked:
                size = int(await asyncio.wait_for(reader.readline(), 120), 16)
                piece = (await reader.readexactly(size + 2))[:-2]
            else:
                piece = await asyncio.wait_for(reader.read(1 << 20), 120)
            if not piece:
                return status, b"".join(parts).decode()
            parts.append(piece)
        return status, None
    finally:
        writer.close()


def text_of(stream):
    events = [json.loads(line[6:]) for line in stream.split("\n") if line.startswith("data: {")]
    choices = [c for e in events for c in e["choices"]]
    return "".join(c.get("text") or (c.get("delta") or {}).get("content") or "" for c in choices), choices[-1]["finish_reason"]


def requests(count):
    """Different prompts, some with the same beginning, greedy and drawn, of different lengths."""
    out = []
    for i in range(count):
        more = {"max_tokens": 4 + i * 7 % 60, "stream": True, "temperature": (i % 3) * 0.5, "seed": i}
        if i % 2:
            out.append(("/v1/completions", {"prompt": f"Story {i // 4}: once upon a time there was a king " * (1 + i % 5), **more}))
        else:
            out.append(("/v1/chat/completions", {"messages": [{"role": "user", "content": f"Tell me about the number {i // 3}."}], **more}))
    return out


class Load:
    def __init__(self, args, server):
        self.args, self.server, self.port = args, server, server.port
        self.statuses, self.failures = collections.Counter(), []
        self.whole = self.left = 0
        self.usage = []  # (seconds, KiB, descriptors, threads)
        self.requests = requests(args.requests)

    async def solo(self):
        self.expected = []
        for path, body in self.requests:
            status, text = await ask(self.port, path, {**body, "cache_prompt": False})
            assert status == 200, (status, text)
            self.expected.append(text_of(text))

    async def stream(self, number):
        r = random.Random(number)
        while time.monotonic() < self.end:
            i = r.randrange(len(self.requests))
            path, body = self.requests[i]
            leave = r.randrange(6) if r.random() < 0.3 else None
            status, text = await ask(self.port, path, {**body, "cache_prompt": r.random() < 0.8}, leave)
            self.statuses[status] += 1
            if status == 429:
                await asyncio.sleep(r.random())
            elif text is None:
                self.left += 1
            elif status == 200:
                self.whole += 1
                if text_of(text) != self.expected[i]:
                    self.failures.append(f"an answer differs from the one it gets alone: {body} {text[-300:]}")

    async def watch_usage(self):
        begin = time.monotonic()
        while time.monotonic() < self.end:
            self.usage.append((time.monotonic() - begin, *self.server.usage()))
            await asyncio.sleep(0.5)

    async def slow_heads(self):
        """Heads of which a byte comes now and then; the server may close them, not more."""
        open_ones = []
        for _ in range(self.args.slow_heads):
            s = socket.create_connection(("127.0.0.1", self.port))
            s.setblocking(False)
            open_ones.append(s)
            await asyncio.sleep(0)
        for byte in "GET /health HTTP/1.1\r\n":
            for s in open_ones:
                try:
                    s.send(byte.encode())
                except OSError:
                    pass
            await asyncio.sleep(self.args.slow_seconds / 22)
        for s in open_ones:
            s.close()

    async def huge_bodies(self):
        """Announced as one, or in chunks until the server has had enough."""
        for chunked in (False, True):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            sent, piece = 0, b"[" * (1 << 20)
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {self.args.body_mib << 20}"
            writer.write(f"{HUGE_HEAD}{framing}\r\n\r\n".encode())
            heard = asyncio.ensure_future(reader.readline())
            try:
                while sent < self.args.body_mib << 20 and not heard.done():
                    writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n" if chunked else piece)
                    await asyncio.wait_for(writer.drain(), 10)
                    sent += len(piece)
                    await asyncio.sleep(0)
            except (OSError, asyncio.TimeoutError):
                pass
            try:
                status = int((await asyncio.wait_for(heard, 10)).split()[1])
            except (OSError, IndexError, asyncio.TimeoutError):
                status = 0  # closed before we looked; never taken
            self.statuses[status or "closed"] += 1
            if status not in (0, 413) or sent > 64 << 20:
                self.failures.append(f"a body of {self.args.body_mib} MiB: {status} after {sent >> 20} MiB")
            writer.close()

    async def bad_values(self):
        document = json.loads((await ask(self.port, "/openapi.json", None))[1])
        tried = 0
        for path, body in bad_requests(document, BAD_VALUES[:self.args.bad_values]):
            status, text = await ask(self.port, path, body)
            while status == 429:
                await asyncio.sleep(0.1)
                status, text = await ask(self.port, path, body)
            tried += 1
            self.statuses[status] += 1
            if not (status == 200 or 400 <= status < 500):
                self.failures.append(f"{path} {body[:200]}: {status} {text[:200]}")
        print(f"bad values: {tried} requests", flush=True)

    async def guarded(self, part):
        try:
            await part
        except Exception as e:  # noqa: BLE001 (a client that cannot go on is a failure of the server)
            self.failures.append(f"{part.__name__}: {type(e).__name__}: {e}")

    async def run(self):
        self.end = time.monotonic() + self.args.seconds
        parts = [self.stream(i) for i in range(self.args.streams)] + [self.watch_usage(), self.disturb()]
        await asyncio.gather(*(self.guarded(p) for p in parts))

    async def disturb(self):
        await asyncio.sleep(min(5, self.args.seconds / 10))
        while True:
            await self.slow_heads()
            await self.huge_bodies()
            await self.bad_values()
            if time.monotonic() > self.end - self.args.seconds / 2:
                return


BAD_VALUES = ["-1", "NaN", '"1"', "9223372036854775808", "0", "1", "0.5", "-0.0", "2147483647", "2147483648", "9223372036854775807", "1e308", "-1e308",
              "1e999", "Infinity", "null", "[]", "{}", "true", "1" * 63]


def bad_requests(document, values):
    """Path and body for each numeric field of each request, nested ones too, and each bad value."""
    schemas = document["components"]["schemas"]

    def numeric(schema, pointer=()):
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        if schema.get("type") in ("number", "integer"):
            yield pointer
        for name, member in schema.get("properties", {}).items():
            yield from numeric(member, (*pointer, name))

    minimal = {"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "content": "Hi", "tokens": [1], "input": "Hi", "max_tokens": 1}
    for path, item in document["paths"].items():
        if "post" not in item:
            continue
        name = item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        for pointer in numeric(schemas[name]):
            for value in values:
                body = {k: minimal[k] for k in schemas[name]["required"]}
                if "max_tokens" in schemas[name]["properties"] and not pointer[0].startswith(("max_", "n_predict")):
                    body["max_tokens"] = 1
                at = body
                for part in pointer[:-1]:
                    at = at.setdefault(part, {"type": "enabled"} if part == "thinking" else {})
                at[pointer[-1]] = "VALUE"
                yield path, json.dumps(body).replace('"VALUE"', value).encode()


def probe_health(port, until, out):
    """Milliseconds of a request on a connection of its own, again and again; in a process of its own, with nothing else to do."""
    times = []
    while time.time() < until.value:
        begin = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            head = s.recv(4096)
        times.append((time.perf_counter() - begin) * 1e3)
        if not head.startswith(b"HTTP/1.1 200"):
            times[-1] = float("inf")
        time.sleep(0.02)
    out.put(times)


def judge(load, times, busy_after, memory_kib):
    """Lines of the report; True where all is as asked."""
    right = True

    def say(ok, text):
        nonlocal right
        right = right and ok
        print(("ok    " if ok else "FAILS ") + text, flush=True)

    only = all(s == "closed" or s == 200 or 400 <= s < 500 for s in load.statuses)
    say(only, f"statuses: {dict(sorted(load.statuses.items(), key=str))}")
    say(load.whole > 0 and not load.failures, f"{load.whole} answers read to their end, {load.left} left; {len(load.failures)} failures")
    for failure in load.failures[:5]:
        print("      " + failure)
    times.sort()
    p99 = times[int(0.99 * len(times))]
    say(p99 < 50, f"/health: {len(times)} requests, median {statistics.median(times):.1f} ms, p99 {p99:.1f} ms, worst {times[-1]:.1f} ms")
    n = len(load.usage)
    early, late = load.usage[n // 4:n // 2], load.usage[3 * n // 4:]
    growth = max(u[1] for u in late) - max(u[1] for u in early)
    say(growth < memory_kib, f"memory: {max(u[1] for u in early) / 1024:.1f} MiB at most in the second quarter, {growth / 1024:+.1f} MiB in the last")
    say(max(u[3] for u in late) <= max(u[3] for u in early), f"threads: {max(u[3] for u in late)}; descriptors at most {max(u[2] for u in load.usage)}")
    say(busy_after == 0, f"slots busy a second after the end: {busy_after}")
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plumb", default=os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb"))
    parser.add_argument("--model", default=None)
    for name, value, most in (("seconds", 600, 3600), ("streams", 32, 128), ("slots", 8, 64), ("queue", 20, 1000), ("requests", 40, 1000),
                              ("slow-heads", 1000, 4000), ("slow-seconds", 20, 600), ("body-mib", 1024, 4096), ("memory-mib", 8, 64), ("bad-values", 20, 20)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}, at most {most}")
        parser.set_defaults(**{f"most_{name}": most})
    args = parser.parse_args()
    for name, value in vars(args).items():
        most = vars(args).get("most_" + name.replace("_", "-"))
        if most is not None and not 1 <= value <= most:
            parser.error(f"--{name}: 1 to {most}")
    args.model = args.model or str(fetch.fetch("smollm2"))
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, descriptors[1]), descriptors[1]))
    server = Server(args)
    load = Load(args, server)
    until, out = multiprocessing.Value("d", time.time() + 7200), multiprocessing.Queue()
    prober = multiprocessing.Process(target=probe_health, args=(server.port, until, out), daemon=True)

    async def everything():
        await load.solo()
        prober.start()
        await load.run()
        until.value = 0
        await asyncio.sleep(1)
        return sum(s["is_processing"] for s in json.loads((await ask(server.port, "/slots", None))[1]))

    busy = asyncio.run(everything())
    right = judge(load, out.get(timeout=30), busy, args.memory_mib * 1024)
    status = server.stop()
    print(f"{'ok    ' if status == 0 else 'FAILS '}the server ended with {status}")
    return 0 if right and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
