"""plumb serve over plain HTTP: every answer is the one that the request would have got alone, and what it cannot do it says by name."""

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unittest
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts")]

import fetch  # noqa: E402

PLUMB = os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb")
MODEL = str(fetch.fetch("smollm2"))


warnings.simplefilter("ignore", ResourceWarning)  # connections are left open on purpose


class Server:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([PLUMB, "serve", "-m", MODEL, "--port", "0", *arguments], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        self.port = next(int(m.group(1)) for line in self.process.stderr if (m := re.search(r"http://.*:(\d+)", line)))

    def send(self, path, body=None, headers=None, method=None):
        """The connection, with the request on its way."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        data = json.dumps(body) if isinstance(body, dict) else body
        c.request(method or ("GET" if body is None else "POST"), path, data, {"Content-Type": "application/json", **(headers or {})})
        return c

    def ask(self, path, body=None, headers=None):
        c = self.send(path, body, headers)
        r = c.getresponse()
        text = r.read().decode()
        c.close()
        return r.status, json.loads(text) if text.startswith("{") else text

    def text(self, prompt, **more):
        status, answer = self.ask("/v1/completions", {"prompt": prompt, "max_tokens": 16, "temperature": 0, **more})
        assert status == 200, answer
        return answer["choices"][0]["text"]

    def events(self, path, body):
        r = self.send(path, {**body, "stream": True}).getresponse()
        assert r.status == 200, r.read()
        lines = [line[6:] for line in r.read().decode().split("\n") if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        return [json.loads(line) for line in lines[:-1]]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("-c", "512", "-np", "4", "--queue", "2")

    @classmethod
    def tearDownClass(cls):
        status = cls.server.stop()
        cls.server.process.stderr.close()
        assert status == 0, status

    def test_answers_that_share_passes_are_those_of_the_requests_alone(self):
        prompts = [f"The number {i} is special because" for i in range(4)]
        more = [{"temperature": 0.8 if i % 2 else 0, "seed": i, "cache_prompt": False} for i in range(4)]
        alone = [self.server.text(p, **m) for p, m in zip(prompts, more)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda a: self.server.text(a[0], **a[1]), zip(prompts, more)))
        self.assertEqual(together, alone)
        self.assertEqual([self.server.text(p, **{**m, "cache_prompt": True}) for p, m in zip(prompts, more)], alone)

    def test_greedy_text_is_that_of_plumb_run(self):
        run = subprocess.run([PLUMB, "run", "-m", MODEL, "-p", "The capital of France is", "-n", "16", "--temp", "0", "-c", "512", "-q"],
                             capture_output=True, text=True, check=True).stdout
        self.assertEqual(self.server.text("The capital of France is"), run)

    def test_a_stream_adds_up_to_the_whole_answer(self):
        body = {"messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 24, "temperature": 0, "logprobs": True}
        _, whole = self.server.ask("/v1/chat/completions", body)
        parts = self.server.events("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
        choices = [p["choices"][0] for p in parts if p["choices"]]
        self.assertEqual("".join(c["delta"].get("content") or "" for c in choices), whole["choices"][0]["message"]["content"])
        scores = [t["logprob"] for c in choices for t in ((c["logprobs"] or {}).get("content") or [])]
        self.assertEqual(scores, [t["logprob"] for t in whole["choices"][0]["logprobs"]["content"]])
        self.assertEqual(parts[-1]["usage"]["completion_tokens"], whole["usage"]["completion_tokens"])
        self.assertEqual(choices[-1]["finish_reason"], whole["choices"][0]["finish_reason"])

    def test_echo_scores_a_prompt_as_plumb_logits_does(self):
        prompt = "The capital of France is Paris, and"
        _, answer = self.server.ask("/v1/completions", {"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 0, "temperature": 0})
        scores = answer["choices"][0]["logprobs"]
        self.assertEqual("".join(scores["tokens"]), prompt)
        self.assertIsNone(scores["token_logprobs"][0])
        out = Path(os.environ.get("TMPDIR", "/tmp")) / f"plumb-server-test-{os.getpid()}.npy"
        self.addCleanup(lambda: out.unlink(missing_ok=True))
        subprocess.run([PLUMB, "logits", "-m", MODEL, "-p", prompt, "--all", "-c", "512", "-o", out], check=True, capture_output=True)
        import numpy as np
        logits = np.load(out).astype(np.float64)
        ids = [int(i) for i in subprocess.run([PLUMB, "tokenize", "-m", MODEL, "-p", prompt, "--ids"], capture_output=True, text=True,
                                              check=True).stdout.replace("[", "").replace("]", "").split(",")]
        for i, said in enumerate(scores["token_logprobs"][1:]):
            row = logits[i]
            self.assertAlmostEqual(said, row[ids[i + 1]] - row.max() - np.log(np.exp(row - row.max()).sum()), places=5)

    def test_what_is_misspelt_or_out_of_range_is_named(self):
        chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        for body, name in (({**chat, "temprature": 1}, "temprature"), ({**chat, "temperature": "hot"}, "temperature"), ({**chat, "n": 0}, "n"),
                           ({**chat, "top_p": 7}, "top_p"), ({"messages": []}, "messages"), ({**chat, "logit_bias": {"x": 1}}, "logit_bias"),
                           ({**chat, "model": "other"}, "model"), ({**chat, "stream_options": {"include_usage": True}}, "stream_options")):
            with self.subTest(name):
                status, answer = self.server.ask("/v1/chat/completions", body)
                self.assertIn(status, (400, 404), answer)
                self.assertIn(name, json.dumps(answer["error"]))

    def test_bodies_that_are_none(self):
        for body in ("", "{", "[]", '{"a":' * 200, '{"prompt": "\\ud800"}', '{"prompt": 1, "prompt": 2}', "\xff"):
            with self.subTest(body[:20]):
                self.assertEqual(self.server.ask("/v1/completions", body.encode("latin-1"))[0], 400)
        self.assertEqual(self.server.ask("/nothing")[0], 404)
        self.assertEqual(self.server.send("/v1/completions", "{}", {"Content-Length": str(1 << 40)}).getresponse().status, 413)
        self.assertIn(self.server.ask("/health", headers={"Host": "evil.example"})[0], (400, 403, 421))
        self.assertEqual(self.server.ask("/v1/completions", {"prompt": "x " * 2000})[0], 400)

    def test_slow_heads_do_not_hold_others_up(self):
        slow = []
        for _ in range(100):
            s = socket.create_connection(("127.0.0.1", self.server.port))
            s.sendall(b"POST /v1/completions HTT")
            slow.append(s)
        begun = time.monotonic()
        self.assertEqual(self.server.ask("/health")[0], 200)
        self.assertLess(time.monotonic() - begun, 1)
        for s in slow:
            s.close()

    def test_beyond_slots_and_queue_is_429_and_those_who_leave_free_their_slot(self):
        long = {"prompt": "Once upon a time", "max_tokens": 400, "temperature": 0, "ignore_eos": True, "stream": True}
        open_ones = [self.server.send("/v1/completions", long) for _ in range(6)]
        first = open_ones[0].getresponse()
        first.read(10)
        r = None
        for _ in range(50):
            r = self.server.send("/v1/completions", long).getresponse()
            if r.status == 429:
                break
            r.close()
            time.sleep(0.02)
        self.assertEqual(r.status, 429)
        self.assertGreaterEqual(int(r.headers["Retry-After"]), 1)
        first.close()
        for c in open_ones:
            c.close()
        end = time.monotonic() + 10
        while any(s["is_processing"] for s in json.loads(self.server.send("/slots").getresponse().read())):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.assertTrue(self.server.text("Hello"))

    def test_anthropics_and_llama_cpps_requests_have_answers(self):
        status, answer = self.server.ask("/v1/messages", {"model": "SmolLM2-135M-Instruct.Q4_1", "max_tokens": 8, "temperature": 0,
                                                          "messages": [{"role": "user", "content": "Hi"}]}, {"anthropic-version": "2023-06-01"})
        self.assertEqual((status, answer["type"], answer["content"][0]["type"]), (200, "message", "text"))
        status, answer = self.server.ask("/completion", {"prompt": "Hi", "n_predict": 4, "temperature": 0})
        self.assertEqual((status, answer["tokens_predicted"]), (200, 4))
        for path in ("/health", "/v1/models", "/props", "/slots"):
            self.assertEqual(self.server.send(path).getresponse().status, 200, path)
        _, tokens = self.server.ask("/tokenize", {"content": "Hello world"})
        self.assertEqual(self.server.ask("/detokenize", tokens)[1]["content"], "Hello world")

    def test_progress_and_timings_come_while_a_prompt_is_read_and_answered(self):
        body = {"messages": [{"role": "user", "content": "word " * 300}], "max_tokens": 4, "temperature": 0, "cache_prompt": False,
                "ignore_eos": True}
        parts = self.server.events("/v1/chat/completions", {**body, "return_progress": True, "timings_per_token": True})
        read = [p["prompt_progress"] for p in parts if "prompt_progress" in p]
        self.assertEqual((read[-1]["processed"], read[-1]["cache"]), (read[-1]["total"], 0))
        self.assertEqual([r["processed"] for r in read], sorted({r["processed"] for r in read}))
        self.assertEqual([p["timings"]["predicted_n"] for p in parts if "timings" in p], [1, 2, 3, 4])
        self.assertEqual(self.server.ask("/v1/chat/completions", {**body, "return_progress": True})[0], 400)

    def test_probabilities_behind_the_samplers_are_of_what_they_leave(self):
        body = {"prompt": "The capital of France is", "n_predict": 1, "n_probs": 5, "post_sampling_probs": True, "seed": 1}
        _, answer = self.server.ask("/completion", {**body, "samplers": ["top_k", "temperature"], "top_k": 3, "temperature": 1})
        found = answer["completion_probabilities"][0]
        self.assertEqual(len(found["top_probs"]), 3)
        self.assertAlmostEqual(sum(t["prob"] for t in found["top_probs"]), 1, places=9)
        self.assertIn(found["prob"], [t["prob"] for t in found["top_probs"]])
        _, answer = self.server.ask("/completion", {**body, "mirostat": 2, "mirostat_tau": 0.01})
        self.assertEqual(answer["completion_probabilities"][0]["prob"], 1)


class Keys(unittest.TestCase):
    def test_a_key_is_asked_for_and_compared_whole(self):
        server = Server("-c", "256", "--api-key", "secret")
        self.addCleanup(server.process.stderr.close)
        body = {"prompt": "Hi", "max_tokens": 1}
        for key, status in (("", 401), ("Bearer ", 401), ("Bearer secre", 401), ("Bearer secret", 200)):
            self.assertEqual(server.ask("/v1/completions", body, {"Authorization": key} if key else {})[0], status, key)
        self.assertEqual(server.ask("/health")[0], 200)
        answer = server.send("/v1/completions", {**body, "max_tokens": 60}, {"Authorization": "Bearer secret"})
        time.sleep(0.1)
        self.assertEqual(server.stop(), 0)  # drained: the answer under way is whole
        self.assertEqual(answer.getresponse().status, 200)

    def test_beyond_this_machine_only_with_a_key(self):
        r = subprocess.run([PLUMB, "serve", "-m", MODEL, "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True, timeout=60)
        self.assertEqual(r.returncode, 4)
        self.assertIn("key", r.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
