"""What `plumb serve` says of itself: its OpenAPI document against its behaviour, embeddings, health while loading, metrics, log, limits of time."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "tools")]

import numpy as np  # noqa: E402
from serving import MODEL, PACKED, PLUMB, Server  # noqa: E402

MINIMAL = {"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "content": "Hi", "tokens": [1], "input": "Hi", "max_tokens": 1}
# Where what is required alone would be much, or means something else.
OF_PATH = {"/plumb/trace": {"prompt": "Hi", "values": ["logits"]}, "/plumb/hidden": {"input": "Hi", "values": ["output_norm"]},
           "/plumb/compare": {"trace": {"plumb_trace": 1, "records": []}}}


class Document(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("-np", "4", "--metrics")
        cls.document = cls.server.ask("GET", "/openapi.json")[2]
        cls.schemas = cls.document["components"]["schemas"]
        recorded = cls.server.ask("POST", "/plumb/record", {"prompt": "Hi", "max_tokens": 1})[2]
        cls.of_path = {**OF_PATH, "/plumb/replay": {"receipt": recorded["receipt"]}}

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def requests(self):
        """(path, schema, the least body) of each route with one."""
        for path, item in self.document["paths"].items():
            if "post" in item:
                schema = self.schemas[item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]]
                body = dict(self.of_path.get(path) or {k: MINIMAL[k] for k in schema["required"]})
                if "max_tokens" in schema["properties"]:
                    body["max_tokens"] = 1
                yield path, schema, body

    def test_every_route_is_there_and_the_least_body_is_enough(self):
        for path, item in self.document["paths"].items():
            if "get" in item:
                self.assertEqual(self.server.ask("GET", path)[0], 200, path)
        for path, _, body in self.requests():
            self.assertEqual(self.server.ask("POST", path, body)[0], 200, path)

    def test_numbers_are_taken_within_their_bounds_and_not_beyond(self):
        for path, schema, body in self.requests():
            for name, field in schema["properties"].items():
                if field.get("type") not in ("number", "integer") or name in ("max_output_tokens", "n_predict", "max_completion_tokens", "dimensions"):
                    continue  # tokens must also fit the context
                step = 1 if field["type"] == "integer" else 1e-3
                low, high = field["minimum"], field["maximum"]
                for value, status in ((low, 200), (high, 200), (low - step, 400), (high + step, 400)):
                    if name == "max_tokens" and value == high or name == "best_of":
                        continue
                    more = {"logprobs": True} if name == "top_logprobs" else {"temperature": 0} if name == "seed" else {}
                    if name == "seed" and value < 0:
                        status = 200
                    with self.subTest(path=path, name=name, value=value):
                        found = self.server.ask("POST", path, {**body, **more, name: value})
                        self.assertEqual(found[0], status, found[2])

    def test_fields_that_it_does_not_list_are_refused_and_the_listed_ones_known(self):
        for path, schema, body in self.requests():
            status, _, found = self.server.ask("POST", path, {**body, "no_such_field": 1})
            self.assertEqual(status, 400, path)
            self.assertIn("no_such_field", json.dumps(found["error"]))
            for name in schema["properties"]:
                status, _, found = self.server.ask("POST", path, {**body, name: {"no such": []}})
                self.assertNotIn("unknown field", json.dumps(found) if f"/{name}:" in json.dumps(found) else "", f"{path} {name}")

    def test_every_value_that_null_stands_for_is_the_one_left_out(self):
        for path, schema, body in self.requests():
            nothing = {name: None for name in schema["properties"] if name not in body}
            self.assertEqual(self.server.ask("POST", path, {**body, **nothing})[0], 200, path)

    def test_embeddings_are_normal_repeatable_and_the_clients_base64(self):
        client = self.server.openai()
        texts = ["A dog runs.", "The puppy is running.", "Interest rates were raised."]
        found = client.embeddings.create(model="smol", input=texts)
        vectors = np.array([d.embedding for d in found.data])
        self.assertEqual(vectors.shape, (3, 576))
        np.testing.assert_allclose((vectors ** 2).sum(1), 1, atol=1e-5)
        self.assertGreater(vectors[0] @ vectors[1], vectors[0] @ vectors[2])
        ids = self.server.ask("POST", "/tokenize", {"content": texts[0], "add_special": True})[2]["tokens"]
        self.assertEqual(found.usage.prompt_tokens, sum(len(self.server.ask("POST", "/tokenize", {"content": t, "add_special": True})[2]["tokens"]) for t in texts))
        plain = self.server.ask("POST", "/v1/embeddings", {"input": ids, "encoding_format": "float"})[2]["data"][0]["embedding"]
        raw = self.server.ask("POST", "/v1/embeddings", {"input": texts[0], "encoding_format": "base64"})[2]["data"][0]["embedding"]
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(raw), "<f4"), np.float32(plain))
        np.testing.assert_array_equal(np.float32(plain), np.float32(vectors[0]))
        for bad in ({"input": []}, {"input": [""]}, {"input": "x", "dimensions": 12}, {"input": "x " * 3000}, {"input": [["x"]]}):
            self.assertEqual(self.server.ask("POST", "/v1/embeddings", bad)[0], 400, str(bad)[:60])

    def test_metrics_have_routes_and_histograms(self):
        self.server.ask("POST", "/v1/completions", {"prompt": "Hi", "max_tokens": 3, "ignore_eos": True})
        self.server.ask("GET", "/nowhere")
        text = self.server.ask("GET", "/metrics")[2]
        self.assertRegex(text, r'plumb:requests_total\{route="/v1/completions",status="200"\} [1-9]')
        self.assertRegex(text, r'plumb:requests_total\{route="other",status="404"\} [1-9]')
        buckets = [int(n) for n in re.findall(r'plumb:token_gap_seconds_bucket\{le="[^"]+"\} (\d+)', text)]
        self.assertEqual(buckets, sorted(buckets))
        self.assertEqual(buckets[-1], int(re.search(r"plumb:token_gap_seconds_count (\d+)", text)[1]))
        self.assertGreater(buckets[-1], 0)


class Life(unittest.TestCase):
    def test_health_is_503_until_the_model_is_there(self):
        with tempfile.TemporaryDirectory() as folder:
            fifo = Path(folder, "m.jinja")  # who opens it waits for a writer: so does the loading
            os.mkfifo(fifo)
            p = subprocess.Popen([PLUMB, "serve", "-m", MODEL, "--port", "0", "-c", "64", "--chat-template-file", fifo], stderr=subprocess.PIPE, text=True,
                                 env={**os.environ, "PLUMB_PACKED": PACKED})
            port = int(re.search(r"port (\d+)", p.stderr.readline())[1])

            def get(path):
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                c.request("GET", path)
                r = c.getresponse()
                return r.status, r.read().decode(), r.headers["Retry-After"]
            self.assertEqual(get("/health"), (503, '{"status":"loading"}', "1"))
            self.assertEqual(get("/v1/models")[0], 503)
            self.assertEqual(get("/")[0], 200)
            fifo.write_text("{{ messages[0].content }}")
            p.stderr.readline(), p.stderr.readline()
            self.assertEqual(get("/health")[:2], (200, '{"status":"ok"}'))
            p.send_signal(signal.SIGTERM)
            self.assertEqual(p.wait(timeout=30), 0)
            p.stderr.close()

    def test_the_log_has_a_line_for_each_request_and_nothing_that_a_terminal_obeys(self):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log")
            server = Server("--log-file", str(log), "--api-key", "a-secret-key")
            for path in ("/health", "/\x1b]52;c;eA==\x07", "/\u202e\x9b31m"):
                with socket.create_connection(("127.0.0.1", server.port)) as s:
                    s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                    s.recv(4096)
            server.ask("POST", "/v1/completions?key=a-secret-key", {"prompt": "A private text", "max_tokens": 2}, {"Authorization": "Bearer a-secret-key"})
            self.assertEqual(server.stop(), 0)
            text = log.read_text()
            lines = [json.loads(line) for line in text.splitlines()]
            self.assertEqual(sorted(line["status"] for line in lines), [200, 200, 400, 401])  # threads write as they end
            self.assertTrue(text.replace("\n", "").isprintable() and text.isascii())
            self.assertNotIn("secret", text)
            self.assertNotIn("private", text)

    def test_an_answer_ends_when_its_time_is_over_and_a_body_when_its_is(self):
        server = Server("--max-time", "0.2", "-to", "1")
        self.addCleanup(server.stop)
        begin = time.monotonic()
        found = server.ask("POST", "/v1/completions", {"prompt": "Hi", "max_tokens": 900, "ignore_eos": True, "temperature": 0})[2]
        self.assertLess(time.monotonic() - begin, 2)
        self.assertEqual(found["choices"][0]["finish_reason"], "length")
        self.assertLess(found["usage"]["completion_tokens"], 900)
        self.assertEqual(server.raw(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"), 408)
        self.assertEqual(server.raw(b"POST /tokenize HTTP/1.1\r\nHo"), 408)

    def test_flags_are_the_defaults_of_requests(self):
        server = Server("--temp", "0", "-n", "3", "--no-cache-prompt", "--no-slots", "--chat-template", "{{ word }}{{ messages[0].content }}",
                        "--chat-template-kwargs", '{"word": "Say "}')
        self.addCleanup(server.stop)
        asked = {"prompt": "The capital of France is"}
        a, b = (server.ask("POST", "/completion", asked)[2] for _ in range(2))
        self.assertEqual((a["content"], a["tokens_predicted"], b["tokens_cached"]), (b["content"], 3, 0))
        self.assertEqual(server.ask("POST", "/apply-template", {"messages": [{"role": "user", "content": "x"}]})[2]["prompt"], "Say x")
        self.assertEqual(server.ask("GET", "/slots")[0], 501)


class Supervised(unittest.TestCase):
    """--supervise: a child serves; the port outlives it."""

    def child(self, server):
        return int(subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True).stdout)

    def test_a_killed_child_is_followed_by_another_at_the_same_port(self):
        server = Server("--supervise")
        first = self.child(server)
        before = server.ask("POST", "/v1/completions", {"prompt": "Once", "max_tokens": 4, "temperature": 0})[2]["choices"]
        os.kill(first, signal.SIGKILL)
        until = time.time() + 60
        while True:  # nobody is turned away: who comes early waits, or hears that the model is loaded
            status, _, body = server.ask("POST", "/v1/completions", {"prompt": "Once", "max_tokens": 4, "temperature": 0})
            if status == 200 or time.time() > until:
                break
            self.assertEqual(status, 503)
            time.sleep(0.05)
        self.assertEqual((status, body["choices"]), (200, before))
        second = self.child(server)
        self.assertNotEqual(first, second)
        server.process.send_signal(signal.SIGTERM)
        log = server.process.communicate(timeout=60)[1]
        self.assertIn("killed by signal 9", log)
        self.assertEqual(server.process.returncode, 0)
        self.assertFalse(Path(f"/proc/{second}").exists())

    def test_a_child_that_always_dies_is_given_up(self):
        server = Server("--supervise")
        for _ in range(3):
            child = self.child(server)
            os.kill(child, signal.SIGSEGV)
            while server.process.poll() is None and Path(f"/proc/{child}").exists():
                time.sleep(0.02)
            time.sleep(0.2)
        self.assertIn("too often", server.process.communicate(timeout=60)[1])
        self.assertEqual(server.process.returncode, 1)

    def test_an_error_of_the_child_is_the_commands(self):
        r = subprocess.run([PLUMB, "serve", "-m", "/nowhere.gguf", "--port", "0", "--supervise"], capture_output=True, text=True, timeout=60)
        self.assertEqual((r.returncode, r.stderr.count("plumb: ")), (2, 1), r.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
