"""A headless Chromium driven over its DevTools protocol, with the standard library alone."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Socket:
    """A WebSocket client: text frames of any length, masked as RFC 6455 asks of clients."""

    def __init__(self, url):
        host, path = url.removeprefix("ws://").split("/", 1)
        name, port = host.split(":")
        self.s = socket.create_connection((name, int(port)), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.s.sendall((f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        self.held = b""
        while b"\r\n\r\n" not in self.held:
            self.held += self.s.recv(4096)
        self.held = self.held.split(b"\r\n\r\n", 1)[1]

    def take(self, n):
        while len(self.held) < n:
            more = self.s.recv(1 << 16)
            if not more:
                raise ConnectionError("the browser is gone")
            self.held += more
        out, self.held = self.held[:n], self.held[n:]
        return out

    def send(self, text):
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        head = bytes([0x81, 0x80 | size]) if size < 126 else struct.pack(">BBH" if size < 1 << 16 else ">BBQ", 0x81,
                                                                         0xFE if size < 1 << 16 else 0xFF, size)
        self.s.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def receive(self):
        out = b""
        while True:
            first, second = self.take(2)
            size = second & 127
            if size > 125:
                size = struct.unpack(">H" if size == 126 else ">Q", self.take(2 if size == 126 else 8))[0]
            data = self.take(size)
            if first & 15 < 3:
                out += data
            if first & 0x80 and first & 15 < 3:
                return out.decode()


class Page:
    def __init__(self, url, width=1280, height=900):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--disable-background-networking",
             f"--user-data-dir={self.profile.name}", f"--window-size={width},{height}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = Path(self.profile.name) / "DevToolsActivePort"
        self.until(lambda: port.exists() and port.read_text().count("\n") >= 1)
        base = f"http://127.0.0.1:{port.read_text().split()[0]}"
        tabs = self.until(lambda: [t for t in json.load(urllib.request.urlopen(base + "/json")) if t["type"] == "page"])
        self.socket, self.last, self.events = Socket(tabs[0]["webSocketDebuggerUrl"]), 0, []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(domain + ".enable")
        self.size(width, height)
        self.ask("Page.navigate", url=url)

    def ask(self, method, **params):
        self.last += 1
        self.socket.send(json.dumps({"id": self.last, "method": method, "params": params}))
        while True:
            m = json.loads(self.socket.receive())
            if m.get("id") == self.last:
                if "error" in m:
                    raise RuntimeError(m["error"])
                return m["result"]
            self.events.append(m)

    def run(self, code):
        r = self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in r:
            raise RuntimeError(r["exceptionDetails"].get("exception", {}).get("description", r["exceptionDetails"]))
        return r["result"].get("value")

    def wait(self, code, seconds=60):
        return self.until(lambda: self.run(code), seconds, code)

    @staticmethod
    def until(what, seconds=60, name="the browser"):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := what():
                return value
            time.sleep(0.05)
        raise TimeoutError(f"{name}: not within {seconds} s")

    def size(self, width, height):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700)

    def key(self, key, modifiers=0):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers,
                     windowsVirtualKeyCode={"Enter": 13, "Escape": 27}.get(key, 0), **text)

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def picture(self, path):
        Path(path).write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.profile.cleanup()
