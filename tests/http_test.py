"""plumb record http against a small server that answers as llama-server and as OpenAI's completions do."""

import http.server
import json
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "oracle")]
import diff_test as d  # noqa: E402
import harness as h  # noqa: E402
import numpy as np  # noqa: E402


class Handler(http.server.BaseHTTPRequestHandler):
    """Greedy steps of `model` (an oracle), in the form that `style` says."""
    model = style = None

    def log_message(self, *_):
        pass

    def steps(self, ids, n, top):
        for _ in range(n):
            y = self.model.values(ids)["logits"][-1]
            y = y - y.max()
            y -= np.log(np.exp(y).sum())
            best = [int(i) for i in np.argsort(-y, kind="stable")[:top]]
            yield best[0], {i: float(y[i]) for i in best}
            ids = ids + [best[0]]

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if (self.path, self.style) == ("/completion", "llama"):
            found = self.steps(body["prompt"], body["n_predict"], body["n_probs"])
            answer = {"completion_probabilities": [
                {"id": i, "logprob": top[i], "top_logprobs": [{"id": k, "token": "?", "logprob": x} for k, x in top.items()]}
                for i, top in found]}
        elif (self.path, self.style) == ("/v1/completions", "openai"):
            found = list(self.steps(body["prompt"], body["max_tokens"], body["logprobs"]))
            answer = {"choices": [{"logprobs": {"tokens": [f"token_id:{i}" for i, _ in found],
                                                "top_logprobs": [{f"token_id:{k}": x for k, x in t.items()} for _, t in found]}}]}
        elif self.style == "broken":
            self.send_error(500, "no")
            return
        else:
            self.send_error(404)
            return
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text)


class Http(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = d.model_path("llama-Q4_0")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.shutdown)

    def record(self, style, plants=(), name="x.json"):
        Handler.style, Handler.model = style, d.Faulty(self.path, plants, "q8")
        out = Path(self.folder.name, name)
        h.plumb("record", "--python", sys.executable, "http", f"http://127.0.0.1:{self.server.server_port}", "-m", self.path,
                "--tokens", ",".join(map(str, h.small_prompt())), "-n", 3, "-o", out)
        return d.diff(out, "-m", self.path)

    def test_log_probabilities_of_both_kinds_of_server_are_logits_less_a_constant(self):
        for style in ("llama", "openai"):
            with self.subTest(style):
                status, found = self.record(style, name=f"{style}.json")
                self.assertEqual((status, found["verdict"], found["tokens"]), (0, "same", len(h.small_prompt()) + 2))
                self.assertEqual([v["value"] for v in found["values"]], ["logits"])

    def test_a_wrong_engine_behind_a_server_is_seen(self):
        status, found = self.record("llama", [d.FAULTS["G6 no causal mask"].plant])
        self.assertEqual((status, found["first"]), (2, "logits"))

    def test_diagnose_asks_a_server_and_names_what_is_wrong_behind_it(self):
        Handler.style, Handler.model = "llama", d.Faulty(self.path, [d.FAULTS["G6 no causal mask"].plant], "q8")
        url = f"http://127.0.0.1:{self.server.server_port}"
        r = subprocess.run([h.PLUMB, "diagnose", url, "-m", self.path, "-p", "the end", "-n", "6", "--json"], capture_output=True, text=True)
        self.assertEqual(r.returncode, 1, r.stderr)
        found = json.loads(r.stdout)
        self.assertTrue(found["weak"])
        self.assertIn(["G6"], found["hypotheses"][0]["class"])

    def test_what_is_no_such_server_is_said_in_one_line(self):
        for style, text in (("nothing", "neither /completion nor /v1/completions"), ("broken", "status 500")):
            with self.assertRaisesRegex(AssertionError, text):
                self.record(style)
        self.assertFalse(Path(self.folder.name, "x.json").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
