"""`plumb serve` on SmolLM2 as the tests start it, and one request to it."""

import atexit
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts")]

import fetch  # noqa: E402
import openai  # noqa: E402

PLUMB = os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb")
MODEL = str(fetch.fetch("smollm2"))
PACKED = tempfile.mkdtemp(prefix="plumb-serve-packed-")  # loaded often: packed once
atexit.register(shutil.rmtree, PACKED, ignore_errors=True)


class Server:
    def __init__(self, *arguments, plumb=PLUMB, model=MODEL, **environment):
        self.process = subprocess.Popen([plumb, "serve", "-m", model, "--port", "0", "-c", "1024", "-a", "smol", *arguments],
                                        stderr=subprocess.PIPE, text=True, env={**os.environ, "PLUMB_PACKED": PACKED, **environment})
        for line in self.process.stderr:
            if m := re.search(r"http://[\w.\[\]]+:(\d+)", line):
                self.port = int(m.group(1))
                return
        raise RuntimeError(f"no server: status {self.process.wait()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def ask(self, method, path, body=None, headers=None):
        """Status, headers and JSON (or text) of one request."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        text = body if isinstance(body, (str, bytes, type(None))) else json.dumps(body)
        c.request(method, path, text, {"Content-Type": "application/json", **(headers or {})})
        r = c.getresponse()
        data = r.read().decode()
        c.close()
        return r.status, dict(r.getheaders()), json.loads(data) if data.startswith("{") or data.startswith("[") else data

    def raw(self, data, finish=False):
        """The status that the server answers to these bytes, or None."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
            s.sendall(data)
            if finish:
                s.shutdown(socket.SHUT_WR)
            answer = s.recv(65536)
            return int(answer.split()[1]) if answer else None

    def openai(self, key="none"):
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0)

    def busy(self):
        return sum(slot["is_processing"] for slot in self.ask("GET", "/slots")[2])
