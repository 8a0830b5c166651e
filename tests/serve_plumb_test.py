"""The instrument over HTTP: traces, comparisons and hidden values equal what `plumb trace` and `plumb diff` write, receipts replay, and
answers under way keep their bits."""

import base64
import concurrent.futures
import copy
import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "tools")]

import numpy as np  # noqa: E402
from serving import MODEL, PACKED, PLUMB, Server  # noqa: E402

TEXT = "The capital of France is"
VALUES = ["blk.3.*", "output_norm", "logits"]


def plumb(*arguments, folder=None):
    env = {**os.environ, "PLUMB_PACKED": PACKED, **({"XDG_CACHE_HOME": str(folder)} if folder else {})}  # a cache of floors of its own
    return subprocess.run([PLUMB, *map(str, arguments)], capture_output=True, text=True, env=env)


def written(path):
    """Header, records, and rows by value and step of a trace folder."""
    header = json.loads((path / "trace.json").read_text())
    records = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    rows = {}
    for shard in header["shards"]:
        data = (path / shard["file"]).read_bytes()
        length = int.from_bytes(data[:8], "little")
        for name, t in json.loads(data[8:8 + length]).items():
            begin, end = t["data_offsets"]
            rows[name] = np.frombuffer(data[8 + length + begin:8 + length + end], "<f4").reshape(t["shape"])
    return header, records, rows


class Case(unittest.TestCase):
    flags = ("-np", "4")

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.flags)
        cls.ids = cls.server.ask("POST", "/tokenize", {"content": TEXT, "add_special": True})[2]["tokens"]
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.scratch.name)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()
        assert cls.server.stop() == 0

    def ask(self, path, body, status=200):
        found = self.server.ask("POST", path, body)
        self.assertEqual(found[0], status, str(found[2])[:300])
        return found[2]

    def refused(self, path, body, pointer, words=()):
        error = self.ask(path, body, 400)["error"]
        self.assertEqual(error["param"], pointer, error["message"])
        for word in words:
            self.assertIn(str(word), error["message"])


class Instrument(Case):
    def test_a_trace_is_the_one_that_plumb_trace_writes(self):
        for arith, level, steps in (("fast", "full", 2), ("fast", "stats", 1), ("ref32", "sketch", 0), ("ref64", "full", 1)):
            with self.subTest(arith=arith, level=level):
                out = self.folder / f"{arith}-{level}.trace"
                r = plumb("trace", "-m", MODEL, "--tokens", ",".join(map(str, self.ids)), "--arith", arith, "--level", level, "--steps", steps,
                          "--only", ",".join(VALUES), "-o", out)
                self.assertEqual(r.returncode, 0, r.stderr)
                header, records, rows = written(out)
                found = self.ask("/plumb/trace", {"tokens": self.ids, "values": VALUES, "arith": arith, "level": level, "steps": steps})
                for part in ("plumb_trace", "model", "input", "arithmetic", "level"):
                    self.assertEqual(found[part], header[part])
                self.assertEqual(found["engine"], {k: v for k, v in header["engine"].items() if k != "command"})
                self.assertEqual(len(found["records"]), len(records))
                for ours, theirs in zip(found["records"], records):
                    theirs.pop("shard", None)
                    data, name = ours.pop("data", None), theirs.pop("tensor", None)
                    self.assertEqual(ours, theirs)
                    self.assertEqual(data is None, name is None)
                    if name:
                        np.testing.assert_array_equal(np.float32(data), rows[name].ravel())

    def test_prompt_tokens_and_messages_are_traced_and_layers_chosen(self):
        by_text, by_ids = (self.ask("/plumb/trace", {**body, "values": ["logits"]}) for body in ({"prompt": TEXT}, {"tokens": self.ids}))
        self.assertEqual(by_text, by_ids)
        messages = [{"role": "user", "content": "Hi"}]
        prompt = self.ask("/apply-template", {"messages": messages})["prompt"]
        ids = self.ask("/tokenize", {"content": prompt, "add_special": False})["tokens"]
        found = self.ask("/plumb/trace", {"messages": messages, "layers": [0, 7], "values": ["blk.*.ffn_out", "logits"]})
        self.assertEqual(found["input"]["tokens"], ids)
        self.assertEqual([r["value"] for r in found["records"]], ["blk.0.ffn_out", "blk.7.ffn_out", "logits"])
        inner = self.ask("/plumb/trace", {"tokens": self.ids, "values": ["blk.2.attn.probs"], "arith": "ref32", "level": "full"})["records"]
        np.testing.assert_allclose(np.reshape(inner[0]["data"], inner[0]["shape"]).sum(-1), 1, atol=1e-5)

    def test_what_comes_back_is_read_by_plumb_diff_and_compared_the_same_here(self):
        t = self.ask("/plumb/trace", {"tokens": self.ids, "values": ["blk.0.*", "blk.1.*"], "level": "full"})
        file = self.folder / "t.json"
        file.write_text(json.dumps(t))
        r = plumb("diff", file, "-m", MODEL, "--json", folder=self.folder / "same")
        self.assertEqual((r.returncode, json.loads(r.stdout)["verdict"]), (0, "same"), r.stderr)
        self.assertEqual(self.ask("/plumb/compare", {"trace": t}), json.loads(r.stdout))
        changed = copy.deepcopy(t)
        planted = next(r for r in changed["records"] if r["value"] == "blk.1.attn_v")
        planted["data"] = [1.5 * x for x in planted["data"]]
        file.write_text(json.dumps(changed))
        r = plumb("diff", file, "-m", MODEL, "--json", folder=self.folder / "other")
        said = self.ask("/plumb/compare", {"trace": changed})
        self.assertEqual(said, json.loads(r.stdout))
        self.assertEqual((said["verdict"], said["first"]), ("named", "blk.1.attn_v"))
        self.assertIn("blk.1.attn_v", said["reason"])
        self.assertIn("blk.1.attn_v", said["differ"])

    def test_hidden_values_are_the_traces_rows(self):
        values = ["blk.3.ffn_out", "blk.0.attn_q", "token_embd"]
        t = self.ask("/plumb/trace", {"tokens": self.ids, "values": values + ["output_norm"], "level": "full"})
        rows = {r["value"]: np.float32(r["data"]).reshape(r["shape"][0], -1) for r in t["records"]}
        found = self.ask("/plumb/hidden", {"input": [TEXT, self.ids], "values": values})
        self.assertEqual(found["usage"]["total_tokens"], 2 * len(self.ids))
        for text in found["data"]:
            self.assertEqual([v["value"] for v in text["values"]], values)
            for v in text["values"]:
                self.assertEqual(v["shape"], list(rows[v["value"]].shape))
                np.testing.assert_array_equal(np.float32(v["rows"]), rows[v["value"]])
        last = self.ask("/plumb/hidden", {"input": TEXT, "values": ["output_norm", "blk.3.ffn_out"], "pooling": "last", "encoding_format": "base64"})
        for v in last["data"][0]["values"]:
            np.testing.assert_array_equal(np.frombuffer(base64.b64decode(v["rows"]), "<f4"), rows[v["value"]][-1])
        mean, every = (self.ask("/plumb/hidden", {"input": TEXT, "values": ["blk.3.ffn_out", "output_norm"], "pooling": p})["data"][0]["values"]
                       for p in ("mean", "none"))
        for m, e in zip(mean, every):
            np.testing.assert_array_equal(np.float32(m["rows"][0]), np.float32(np.float64(np.float32(e["rows"])).sum(0) / len(self.ids)))
        np.testing.assert_array_equal(np.float32(every[1]["rows"][-1]), rows["output_norm"][-1])

    def test_what_is_wrong_or_too_much_is_named_by_its_pointer(self):
        ok = {"prompt": "Hi", "values": ["logits"]}
        for body, pointer in (({"values": ["logits"]}, "/prompt"), ({**ok, "tokens": [1]}, "/prompt"), ({**ok, "steps": 65}, "/steps"),
                              ({**ok, "values": ["logits", "no.such"]}, "/values/1"), ({**ok, "values": [""]}, "/values/0"), ({**ok, "values": []}, "/values"),
                              ({**ok, "values": ["blk.0.attn.kq"]}, "/values/0"), ({**ok, "layers": [30]}, "/layers"), ({**ok, "level": "all"}, "/level"),
                              ({**ok, "values": ["blk.1.*"], "layers": [0]}, "/layers"), ({**ok, "arith": "f32"}, "/arith"), ({**ok, "more": 1}, "/more"),
                              ({"tokens": [1] * 512, "steps": 1}, "/tokens"), ({"tokens": [49152]}, "/tokens"), ({"messages": []}, "/messages")):
            self.refused("/plumb/trace", body, pointer)
        self.ask("/plumb/trace", {"tokens": [1] * 512, "values": ["output_norm"]})
        self.refused("/plumb/trace", {"tokens": [1] * 400, "level": "full"}, "/values", (950000, 15728640, 512, "400 tokens"))
        self.refused("/plumb/trace", {"tokens": [1] * 512, "arith": "ref64", "values": ["blk.*"], "level": "full"}, "/values", (950000,))
        self.refused("/plumb/hidden", {"input": "Hi", "values": ["blk.0.*"]}, "/values/0")
        self.refused("/plumb/hidden", {"input": "Hi", "values": ["logits", "logits"]}, "/values/1")
        self.refused("/plumb/hidden", {"input": [[1] * 300, [1] * 213], "values": ["output_norm"]}, "/input", (512,))
        self.refused("/plumb/hidden", {"input": [[1] * 20], "values": ["logits"]}, "/values", (950000,))
        t = self.ask("/plumb/trace", ok)
        for change, pointer in (({"plumb_trace": 2}, "/trace/plumb_trace"), ({"records": 3}, "/trace/records"), ({"input": {"tokens": [49152]}}, "/trace/input/tokens"),
                                ({"input": {"tokens": [1] * 513}}, "/trace/input/tokens"), ({"records": [{"value": "x", "shape": [1]}]}, "/trace/records/0/shape"),
                                ({"records": t["records"] * 3}, "/trace/records/1"), ({"records": [{"value": "x", "tokens": [0, 9], "shape": [9, 1]}]}, "/trace/records/0"),
                                ({"records": [{**t["records"][0], "shard": 1, "tensor": "x"}]}, "/trace/records/0/shard")):
            self.refused("/plumb/compare", {"trace": {**t, **change}}, pointer)
        self.refused("/plumb/compare", {"trace": 1}, "/trace")


class Receipts(Case):
    flags = ("-np", "4", "--temp", "0.7", "--top-k", "30")
    body = {"prompt": TEXT, "max_tokens": 8, "logprobs": 1, "ignore_eos": True}

    def text(self, tokens):
        """An answer's text: its control tokens, the first 17 of the vocabulary, are in the receipt and not in the text."""
        return self.ask("/detokenize", {"tokens": [t for t in tokens if t >= 17]})["content"]

    def test_control_tokens_drawn_past_the_end_of_a_text_are_in_the_receipt_alone(self):
        found = self.ask("/plumb/record", {**self.body, "model": "smol", "n": 2, "seed": 36})
        tokens = [answer["tokens"] for answer in found["receipt"]["answers"]]
        self.assertIn(2, tokens[1])  # <|im_end|>
        self.assertEqual([self.text(t) for t in tokens], [choice["text"] for choice in found["completion"]["choices"]])
        self.assertTrue(self.ask("/plumb/replay", {"receipt": found["receipt"]})["same"])

    def test_a_receipt_holds_what_came_and_replays_as_the_same(self):
        found = self.ask("/plumb/record", {**self.body, "model": "smol", "n": 2})
        receipt, answers = found["receipt"], found["receipt"]["answers"]
        self.assertEqual(receipt["model"]["sha256"], hashlib.sha256(Path(MODEL).read_bytes()).hexdigest())
        self.assertEqual((receipt["request"]["temperature"], receipt["request"]["top_k"]), (0.7, 30))
        self.assertEqual(receipt["system_fingerprint"], found["completion"]["system_fingerprint"])
        plain = self.ask("/v1/completions", {**self.body, "n": 2, "seed": receipt["request"]["seed"]})
        for choice, again, answer in zip(found["completion"]["choices"], plain["choices"], answers):
            self.assertEqual(choice, again)
            self.assertEqual(answer["prompt"], self.ids)
            self.assertEqual(self.text(answer["tokens"]), choice["text"])
            self.assertEqual((len(answer["tokens"]), len(answer["logits"])), (8, 8))
        out = self.folder / "l.npy"
        ids = self.ids + answers[1]["tokens"]
        r = plumb("logits", "-m", MODEL, "--tokens", ",".join(map(str, ids)), "--all", "-o", out)
        self.assertEqual(r.returncode, 0, r.stderr)
        rows = np.load(out).astype("<f4")[len(self.ids) - 1:-1]
        self.assertEqual([hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows], answers[1]["logits"])
        self.assertEqual(self.ask("/plumb/replay", {"receipt": receipt}), {"same": True, "answers": 2, "tokens": 16, "difference": None})
        other = Server("-np", "1", "--temp", "0", "--samplers", "temperature")  # its flags are not the receipt's
        self.addCleanup(other.stop)
        self.assertEqual(other.ask("POST", "/plumb/replay", {"receipt": receipt})[2]["same"], True)

    def test_a_changed_receipt_is_told_where(self):
        receipt = self.ask("/plumb/record", {**self.body, "seed": 3})["receipt"]

        def replayed(change):
            changed = copy.deepcopy(receipt)
            change(changed)
            found = self.ask("/plumb/replay", {"receipt": changed})
            self.assertEqual(found["same"], False)
            d = found["difference"]
            return d["what"], d.get("answer"), d.get("index")
        answer = receipt["answers"][0]
        self.assertEqual(replayed(lambda r: r["answers"][0]["logits"].__setitem__(5, "0" * 16)), ("logits", 0, 5))
        self.assertEqual(replayed(lambda r: r["answers"][0]["tokens"].__setitem__(2, answer["tokens"][2] + 1)), ("token", 0, 2))
        self.assertEqual(replayed(lambda r: (r["answers"][0]["tokens"].pop(), r["answers"][0]["logits"].pop())), ("length", 0, 7))
        self.assertEqual(replayed(lambda r: r["answers"][0]["prompt"].__setitem__(1, 5)), ("prompt", 0, 1))
        self.assertEqual(replayed(lambda r: r["request"].update(n=2)), ("answers", 1, 0))
        self.assertEqual(replayed(lambda r: r["answers"][0].update(finish_reason="stop")), ("finish_reason", 0, 8))
        self.assertEqual(replayed(lambda r: r["model"].update(sha256="0" * 64)), ("model.sha256", None, None))
        self.assertEqual(replayed(lambda r: r.update(system_fingerprint="cpu-1-8-f16-f16")), ("system_fingerprint", None, None))
        self.assertEqual(replayed(lambda r: r["request"].update(temperature=5, seed=8))[0], "token")

    def test_an_end_of_text_is_recorded_with_the_logits_that_chose_it(self):
        prompt = self.ask("/apply-template", {"messages": [{"role": "user", "content": "What is the capital of France?"}]})["prompt"]
        body = {"prompt": prompt, "max_tokens": 60, "temperature": 0}
        receipt = self.ask("/plumb/record", body)["receipt"]
        answer = receipt["answers"][0]
        self.assertEqual((answer["finish_reason"], len(answer["logits"])), ("stop", len(answer["tokens"]) + 1))
        self.assertTrue(self.ask("/plumb/replay", {"receipt": receipt})["same"])

    def test_what_is_wrong_is_named_by_its_pointer(self):
        self.refused("/plumb/record", {**self.body, "stream": True}, "/stream")
        self.refused("/plumb/record", {**self.body, "temperature": -1}, "/temperature")
        receipt = self.ask("/plumb/record", self.body)["receipt"]
        for change, pointer in (({"plumb_receipt": 2}, "/receipt/plumb_receipt"), ({"more": 1}, "/receipt/more"), ({"answers": {}}, "/receipt/answers"),
                                ({"model": {}}, "/receipt/model/sha256"), ({"request": {"prompt": TEXT, "temperature": -1}}, "/receipt/request/temperature"),
                                ({"answers": [{**receipt["answers"][0], "logits": ["x"]}]}, "/receipt/answers/0/logits"),
                                ({"answers": [{**receipt["answers"][0], "tokens": ["x"]}]}, "/receipt/answers/0/tokens")):
            self.refused("/plumb/replay", {"receipt": {**receipt, **change}}, pointer)


class Together(Case):
    flags = ("-np", "4", "--api-key", "one", "--api-key", "two")

    def ask(self, path, body, status=200, key="one"):
        found = self.server.ask("POST", path, body, {"Authorization": f"Bearer {key}"})
        self.assertEqual(found[0], status, str(found[2])[:300])
        return found[2]

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.flags)
        cls.scratch = tempfile.TemporaryDirectory()

    def test_without_a_key_nothing_is_measured(self):
        for name in ("trace", "compare", "hidden", "record", "replay"):
            self.assertEqual(self.server.ask("POST", f"/plumb/{name}", {})[0], 401)
            self.ask(f"/plumb/{name}", {}, 400)

    def test_answers_under_way_keep_their_bits_and_their_pace_while_traces_are_taken(self):
        def answers():
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                return list(pool.map(lambda i: self.ask("/v1/completions", {"prompt": TEXT + " " * i, "max_tokens": 40, "ignore_eos": True, "seed": i,
                                                                            "cache_prompt": False, "logprobs": 2})["choices"], range(3)))
        begin = time.monotonic()
        alone = answers()
        solo = time.monotonic() - begin
        trace = {"prompt": TEXT * 8, "arith": "ref64", "values": ["blk.29.ffn_out"]}
        expected = self.ask("/plumb/trace", trace)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            traces = [pool.submit(self.ask, "/plumb/trace", trace, 200, key) for key in ("one", "two", "one")]
            time.sleep(0.2)
            begin = time.monotonic()
            beside = answers()
            slowed = time.monotonic() - begin
            begin = time.monotonic()
            self.assertEqual(self.server.ask("GET", "/health")[0], 200)
            health = time.monotonic() - begin
            self.assertEqual(alone, beside)
            for t in traces:
                self.assertEqual(t.result(), expected)
        print(f"3 answers: {solo:.2f} s alone, {slowed:.2f} s beside traces; /health {1e3 * health:.0f} ms", flush=True)
        self.assertLess(slowed, 5 * solo + 2)

    def test_beyond_the_queue_clients_are_told_to_come_again_and_one_that_leaves_makes_room(self):
        long = http.client.HTTPConnection("127.0.0.1", self.server.port)
        long.request("POST", "/plumb/trace", json.dumps({"tokens": [1] * 500, "arith": "ref64", "values": ["blk.*"]}),
                     {"Content-Type": "application/json", "Authorization": "Bearer two"})
        time.sleep(1)
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            asked = [pool.submit(self.server.ask, "POST", "/plumb/hidden", {"input": TEXT, "values": ["output_norm"]}, {"Authorization": "Bearer one"})
                     for _ in range(10)]
            done = concurrent.futures.as_completed(asked)  # while the long one runs only the refused ones are
            full = [next(done).result() for _ in range(2)]
            self.assertEqual([f[0] for f in full], [429, 429])
            self.assertTrue(all(f[1]["Retry-After"] for f in full))
            long.close()
            self.assertEqual(sorted(a.result()[0] for a in asked), [200] * 8 + [429] * 2)


class Ends(unittest.TestCase):
    def test_the_end_of_the_server_does_not_wait_for_a_long_measurement(self):
        server = Server("--drain-timeout", "0")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(server.ask, "POST", "/plumb/trace", {"tokens": [1] * 500, "steps": 12, "arith": "ref64", "values": ["blk.*"]}) for _ in range(2)]
            time.sleep(1)
            begin = time.monotonic()
            self.assertEqual(server.stop(), 0)
            self.assertLess(time.monotonic() - begin, 5)
            for w in waiting:
                self.assertEqual(w.result()[0], 503)


if __name__ == "__main__":
    unittest.main(verbosity=2)
