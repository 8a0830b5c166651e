"""plumb serve behind real clients: OpenAI's, Anthropic's, and sockets that behave badly."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "tools")]

import anthropic  # noqa: E402
import numpy as np  # noqa: E402
import openai  # noqa: E402
from serving import MODEL, PACKED, PLUMB, Server  # noqa: E402

MANY = int(os.environ.get("PLUMB_SLOW_HEADS", 100))  # 1000 where somebody watches


def chat(text, **more):
    return {"model": "smol", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 12, **more}


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("-np", "8", "--metrics")
        cls.client = cls.server.openai()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_a_stream_says_what_the_whole_answer_says(self):
        whole = self.client.chat.completions.create(**chat("What is the capital of France?"))
        self.assertEqual(whole.choices[0].message.content, "The capital of France is Paris.")
        self.assertEqual(whole.choices[0].finish_reason, "stop")
        chunks = list(self.client.chat.completions.create(**chat("What is the capital of France?"), stream=True,
                                                          stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertGreater(chunks[-1].usage.prompt_tokens_details.cached_tokens, 30)

    def test_parts_of_content_are_the_text_that_they_join_to(self):
        parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello."}]
        prompts = [self.server.ask("POST", "/apply-template", {"messages": [{"role": "user", "content": c}]})[2]["prompt"]
                   for c in (parts, "Say\nhello.")]
        self.assertEqual(*prompts)

    def test_echoed_log_probabilities_are_those_of_offline_scoring(self):
        text = "The quick brown fox jumps over the lazy dog."
        found = self.client.completions.create(model="smol", prompt=text, echo=True, logprobs=2, max_tokens=1, temperature=0).choices[0]
        ids = self.server.ask("POST", "/tokenize", {"content": text, "add_special": True})[2]["tokens"]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "l.npy")
            subprocess.run([PLUMB, "logits", "-m", MODEL, "--tokens", ",".join(map(str, ids)), "--all", "-o", out], check=True,
                           capture_output=True, env={**os.environ, "PLUMB_PACKED": PACKED})
            rows = np.load(out).astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        self.assertEqual(found.text[:len(text)], text)
        self.assertIsNone(found.logprobs.token_logprobs[0])
        for i in range(1, len(ids)):
            self.assertAlmostEqual(found.logprobs.token_logprobs[i], rows[i - 1, ids[i]], delta=1e-12)
        self.assertAlmostEqual(found.logprobs.token_logprobs[len(ids)], rows[-1].max(), delta=1e-12)
        self.assertEqual("".join(found.logprobs.tokens), found.text)

    def test_every_answer_is_the_one_it_gets_alone(self):
        asked = [chat(f"Tell me about the number {i}.", temperature=1.0, seed=i, max_tokens=24, cache_prompt=i % 3 > 0) for i in range(20)]

        def answer(body):
            status, _, found = self.server.ask("POST", "/v1/chat/completions", body)
            return status, found["choices"][0]["message"]["content"]
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            together = list(pool.map(answer, asked))
        alone = [answer({**body, "cache_prompt": False}) for body in asked[::3]]
        self.assertEqual(together[::3], alone)
        self.assertEqual({status for status, _ in together}, {200})

    def test_answers_to_one_prompt_share_its_reading_and_differ(self):
        found = self.client.chat.completions.create(**{**chat("Write a word."), "temperature": 1.5, "n": 4, "seed": 5})
        again = self.client.chat.completions.create(**{**chat("Write a word."), "temperature": 1.5, "n": 4, "seed": 5})
        texts = [c.message.content for c in found.choices]
        self.assertEqual(texts, [c.message.content for c in again.choices])
        self.assertGreater(len(set(texts)), 1)
        self.assertEqual([c.index for c in found.choices], [0, 1, 2, 3])

    def test_stop_strings_biases_and_log_probabilities(self):
        cut = self.client.chat.completions.create(**chat("What is the capital of France?"), stop=[" of"])
        self.assertEqual((cut.choices[0].message.content, cut.choices[0].finish_reason), ("The capital", "stop"))
        scored = self.client.chat.completions.create(**chat("Hi"), logprobs=True, top_logprobs=3, extra_body={"plumb": {"margin": True}})
        first = scored.choices[0].logprobs.content[0]
        self.assertEqual(first.token, first.top_logprobs[0].token)
        self.assertAlmostEqual(first.margin, first.top_logprobs[0].logprob - first.top_logprobs[1].logprob, delta=1e-9)
        word = self.server.ask("POST", "/tokenize", {"content": "Hello"})[2]["tokens"][0]
        biased = self.client.chat.completions.create(**chat("Hi"), logit_bias={str(word): -100})
        self.assertFalse(biased.choices[0].message.content.startswith("Hello"))

    def test_a_format_is_kept(self):
        schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
                  "required": ["name", "age"], "additionalProperties": False}
        found = self.client.chat.completions.create(**{**chat("A person?"), "max_tokens": 60, "temperature": 1.0, "seed": 3}, response_format={
            "type": "json_schema", "json_schema": {"name": "person", "schema": schema}})
        self.assertEqual(set(json.loads(found.choices[0].message.content)), {"name", "age"})
        yes = self.client.chat.completions.create(**chat("Yes or no?"), extra_body={"grammar": 'root ::= "yes" | "no"'})
        self.assertIn(yes.choices[0].message.content, ("yes", "no"))
        status, _, refused = self.server.ask("POST", "/v1/chat/completions", chat("x", response_format={
            "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "contentEncoding": "base64"}}}))
        self.assertEqual((status, refused["error"]["type"]), (400, "invalid_request_error"))

    def test_anthropics_client(self):
        client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{self.server.port}", api_key="none", max_retries=0)
        asked = dict(model="smol", max_tokens=12, system="You answer.", messages=[{"role": "user", "content": "Hi"}], extra_body={"temperature": 0})
        whole = client.messages.create(**asked)
        self.assertEqual(whole.content[0].type, "text")
        with client.messages.stream(**asked) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual((text, final.stop_reason), (whole.content[0].text, whole.stop_reason))
        asked.pop("max_tokens"), asked.pop("extra_body")
        counted = client.messages.count_tokens(**asked).input_tokens
        self.assertEqual(counted, whole.usage.input_tokens + whole.usage.cache_read_input_tokens)
        with self.assertRaises(anthropic.BadRequestError):
            client.messages.create(model="smol", max_tokens=-5, messages=[{"role": "user", "content": "Hi"}])

    def test_responses_of_openais_client(self):
        whole = self.client.responses.create(model="smol", input="Hi", instructions="You answer.", temperature=0, max_output_tokens=8)
        events = list(self.client.responses.create(model="smol", input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
                                                   instructions="You answer.", temperature=0, max_output_tokens=8, stream=True))
        self.assertEqual("".join(e.delta for e in events if e.type == "response.output_text.delta"), whole.output_text)
        self.assertEqual(events[-1].response.output_text, whole.output_text)
        self.assertEqual([e.sequence_number for e in events], list(range(len(events))))

    def test_responses_call_tools_and_follow_a_schema(self):
        schema = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"], "additionalProperties": False}
        asked = {"model": "smol", "input": "Weather in Rome?", "temperature": 0, "max_output_tokens": 64,
                 "tools": [{"type": "function", "name": "weather", "description": "The weather", "parameters": schema, "strict": True}],
                 "tool_choice": {"type": "function", "name": "weather"}}
        whole = self.client.responses.create(**asked)
        call = whole.output[-1]
        self.assertEqual((call.type, call.name, set(json.loads(call.arguments))), ("function_call", "weather", {"city"}))
        events = list(self.client.responses.create(**asked, stream=True))
        self.assertEqual("".join(e.delta for e in events if e.type == "response.function_call_arguments.delta"), call.arguments)
        self.assertEqual([i.type for i in events[-1].response.output], [i.type for i in whole.output])
        back = [{"role": "user", "content": "Weather in Rome?"}, call.model_dump(exclude_none=True),
                {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
        self.assertTrue(self.client.responses.create(model="smol", input=back, tools=asked["tools"], max_output_tokens=8).output_text)
        formed = self.client.responses.create(model="smol", input="Where?", max_output_tokens=64, temperature=0,
                                              text={"format": {"type": "json_schema", "name": "place", "schema": schema, "strict": True}})
        self.assertIn(json.loads(formed.output_text)["city"], ("Rome", "Oslo"))
        with self.assertRaises(openai.BadRequestError):
            self.client.responses.create(model="smol", input="Hi", tools=[{"type": "web_search"}])

    def test_what_is_wrong_is_named(self):
        bad = {"temprature": 0, "temperature": "1", "top_p": 2, "n": 0, "max_tokens": 1.5, "stop": [""], "seed": 1e300, "logit_bias": {"x": 1},
               "top_logprobs": 3, "messages": [], "stream": 1, "logprobs": 7, "samplers": ["magic"], "plumb": {"recipt": True}, "chat_template": "x",
               "max_completion_tokens": 2**31, "presence_penalty": -1e308, "stream_options": {"include_usage": True}, "tool_choice": "required",
               "frequency_penalty": "x", "response_format": {"type": "xml"}, "min_p": -0.1, "top_k": 2**40}
        for name, value in bad.items():
            with self.subTest(name):
                status, _, found = self.server.ask("POST", "/v1/chat/completions", chat("x", **{name: value}))
                self.assertEqual(status, 400, found)
                self.assertRegex(str(found["error"]["param"]) + found["error"]["message"], name.split("_")[0])
        for status, path, body in ((404, "/v1/chat/completions", chat("x", model="other")), (404, "/nowhere", {}), (405, "/health", {}),
                                   (400, "/v1/chat/completions", "[" * 100000), (400, "/v1/chat/completions", '{"a":1,"a":2}'),
                                   (400, "/detokenize", {"tokens": [10**9]}), (400, "/v1/completions", {"prompt": "x " * 3000})):
            self.assertEqual(self.server.ask("POST", path, body)[0], status, path)

    def test_heads_that_two_readers_might_read_differently_are_refused(self):
        rest = b"Host: localhost\r\nContent-Type: application/json\r\n"
        for status, head in ((400, b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"), (400, b"Content-Length: +2\r\n"), (400, b"Content-Length: 2, 2\r\n"),
                             (400, b"Content-Length: 2\r\nContent-Length: 2\r\n"), (501, b"Transfer-Encoding: gzip\r\n"), (400, b"X : y\r\n"), (400, b" folded\r\n"),
                             (400, b"Host: localhost\r\n"), (413, b"Content-Length: 1000000000\r\n"), (413, b"Content-Length: 99999999999999999999\r\n"),
                             (415, b"Content-Encoding: gzip\r\nContent-Length: 2\r\n"), (431, b"X: " + b"y" * 20000 + b"\r\n"), (431, b"X: y\r\n" * 101),
                             (400, b"X: a\x00b\r\n"), (400, b"X: a\nY: b\r\n"), (417, b"Expect: magic\r\n")):
            with self.subTest(head[:40]):
                self.assertEqual(self.server.raw(b"POST /tokenize HTTP/1.1\r\n" + rest + head + b"\r\n{}"), status)
        self.assertEqual(self.server.raw(b"GET /health HTTP/1.1\r\n\r\n"), 400)
        self.assertEqual(self.server.raw(b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n"), 505)
        self.assertEqual(self.server.raw(b"GET /health HTTP/1.0\r\n\r\n"), 200)
        chunked = b"POST /tokenize HTTP/1.1\r\n" + rest + b"Transfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(self.server.raw(chunked + b'd\r\n{"content":"x\r\n2\r\n"}\r\n0\r\n\r\n'), 200)
        self.assertEqual(self.server.raw(chunked + b"xyz\r\n"), 400)

    def test_foreign_hosts_origins_and_forms_are_refused(self):
        for status, headers in ((421, {"Host": "evil.example"}), (403, {"Origin": "http://evil.example"}), (403, {"Origin": "null"}),
                                (415, {"Content-Type": "text/plain"}), (200, {"Origin": f"http://127.0.0.1:{self.server.port}"})):
            self.assertEqual(self.server.ask("POST", "/tokenize", {"content": "x"}, headers)[0], status, headers)

    def test_a_client_that_leaves_frees_its_slot(self):
        for _ in range(3):
            stream = self.client.chat.completions.create(**{**chat("Count to a thousand."), "max_tokens": 900, "stream": True},
                                                         extra_body={"ignore_eos": True})
            next(iter(stream))
            stream.close()
        end = time.time() + 2
        while self.server.busy() and time.time() < end:
            time.sleep(0.05)
        self.assertEqual(self.server.busy(), 0)

    def test_slow_heads_keep_nobody_waiting(self):
        slow = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(MANY)]
        for s in slow:
            s.sendall(b"GET /health HTTP/1.1\r\nHo")
        times = []
        for _ in range(20):
            start = time.time()
            self.assertEqual(self.server.ask("GET", "/health")[0], 200)
            times.append(time.time() - start)
        for s in slow:
            s.close()
        self.assertLess(sorted(times)[-2], 0.25)

    def test_metrics_count(self):
        self.client.chat.completions.create(**chat("Hi"))
        text = self.server.ask("GET", "/metrics")[2]
        found = dict(line.split() for line in text.splitlines() if not line.startswith("#"))
        self.assertGreater(float(found["plumb:tokens_predicted_total"]), 0)


class Kept(unittest.TestCase):
    """Keys, a short queue, and the end."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--api-key", "first", "--api-key", "second", "-np", "1", "--queue", "2")

    def post(self, body, key="first"):
        return self.server.ask("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})

    def test_1_without_a_key_there_is_nothing_but_health(self):
        self.assertEqual(self.server.ask("GET", "/health")[0], 200)
        self.assertEqual(self.server.ask("GET", "/v1/models")[0], 401)
        with self.assertRaises(openai.AuthenticationError):
            self.server.openai("wrong").models.list()
        self.assertEqual(self.server.openai("second").models.list().data[0].id, "smol")
        self.assertEqual(self.server.ask("GET", "/v1/models", headers={"x-api-key": "first"})[0], 200)
        self.assertEqual(max(self.server.ask("GET", "/v1/models")[0] for _ in range(12)), 429)

    def test_2_what_one_key_has_read_is_no_help_to_another(self):
        time.sleep(1)
        cached = [self.post(chat("A secret of mine."), key)[2]["usage"]["prompt_tokens_details"]["cached_tokens"] for key in ("first", "first", "second")]
        self.assertGreater(cached[1], 30)
        self.assertEqual((cached[0], cached[2]), (0, 0))

    def test_3_beyond_the_queue_requests_are_told_to_come_again(self):
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda i: self.post(chat(f"Story {i}", max_tokens=40)), range(12)))
        statuses = [status for status, _, _ in found]
        self.assertEqual(set(statuses), {200, 429})
        self.assertGreaterEqual(statuses.count(200), 3)
        self.assertTrue(all(headers["Retry-After"] for status, headers, _ in found if status == 429))

    def test_4_the_end_waits_for_the_stream(self):
        stream = self.server.openai("first").chat.completions.create(**{**chat("Tell me a long story."), "max_tokens": 60, "stream": True})
        next(iter(stream))
        self.server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", self.server.port), timeout=2)
        last = [chunk for chunk in stream][-1]
        self.assertIn(last.choices[0].finish_reason, ("length", "stop"))
        self.assertEqual(self.server.process.wait(timeout=30), 0)
        self.server.process.stderr.close()


class Starts(unittest.TestCase):
    def test_nobody_else_may_ask_without_a_key(self):
        for status, arguments in ((4, ["--host", "0.0.0.0"]), (3, ["--host", "203.0.113.1"] + ["--api-key", "x"])):
            found = subprocess.run([PLUMB, "serve", "-m", MODEL, "--port", "0", "-c", "64", *arguments], capture_output=True, text=True, timeout=60,
                                   env={**os.environ, "PLUMB_PACKED": PACKED})
            self.assertEqual(found.returncode, status, found.stderr[-300:])


if __name__ == "__main__":
    unittest.main()
