"""What an evaluation harness asks of /v1/completions (lm-eval's `local-completions`: echo, logprobs, max_tokens 1, ids as the prompt), and
that it equals scoring without a server to the last printed digit: `plumb logits` for each token, `plumb perplexity` for a text."""

import math
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "tools")]

import numpy as np  # noqa: E402
from serving import MODEL, PLUMB, ROOT, Server  # noqa: E402

# Context and continuations, of which a harness compares the likelihoods.
QUESTIONS = [("The capital of France is", (" Paris", " London", " a river", " blue")),
             ("Water boils at a temperature of", (" 100 degrees", " 5 degrees", " the king", " \u00e9t\u00e9")),
             ("Q: What is two plus two?\nA:", (" four", " five", " 4", "\n\n")),
             ("Once upon a time there was a", (" king who had a daughter.", " quantum field.", " \u4f60\u597d", " 12345678")),
             ("def add(a, b):\n    return", (" a + b", " a - b", " None", " b + a"))]


class Scores(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("-np", "4")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def ids(self, text):
        return self.server.ask("POST", "/tokenize", {"content": text, "add_special": True})[2]["tokens"]

    def scores(self, prompts):
        status, _, found = self.server.ask("POST", "/v1/completions", {"model": "smol", "prompt": prompts, "max_tokens": 1, "temperature": 0, "logprobs": 1,
                                                                       "echo": True, "seed": 1234})
        self.assertEqual(status, 200, found)
        return [c["logprobs"] for c in sorted(found["choices"], key=lambda c: c["index"])]

    def offline(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "l.npy")
            subprocess.run([PLUMB, "logits", "-m", MODEL, "--tokens", ",".join(map(str, ids)), "--all", "-o", out], check=True, capture_output=True)
            rows = np.load(out).astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return rows

    def test_likelihoods_and_greediness_of_continuations_are_those_of_offline_scoring(self):
        requests = [(self.ids(context), self.ids(context + more)) for context, choices in QUESTIONS for more in choices]
        found = self.scores([whole for _, whole in requests])
        for (context, whole), scores in zip(requests, found):
            begin = next((i for i, (a, b) in enumerate(zip(context, whole)) if a != b), len(context))  # tokens may join across the border
            rows = self.offline(whole)
            expected = math.fsum(rows[i - 1, whole[i]] for i in range(begin, len(whole)))
            said = math.fsum(scores["token_logprobs"][begin:len(whole)])
            self.assertEqual(f"{said:.10f}", f"{expected:.10f}")
            greedy = all(rows[i - 1].argmax() == whole[i] for i in range(begin, len(whole)))
            said_greedy = all(scores["token_logprobs"][i] == max(scores["top_logprobs"][i].values()) for i in range(begin, len(whole)))
            self.assertEqual(said_greedy, greedy)

    def test_the_perplexity_of_a_text_is_the_one_that_plumb_perplexity_prints(self):
        text = (ROOT / "docs" / "chat.md").read_text()
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(text)
            file.flush()
            r = subprocess.run([PLUMB, "perplexity", "-m", MODEL, "-f", file.name, "-c", "128"], check=True, capture_output=True, text=True)
        printed = re.search(r"PPL = ([\d.]+)", r.stdout + r.stderr)[1]
        ids = self.ids(text)
        windows = [ids[i:i + 128] for i in range(0, len(ids) - 127, 128)]
        scores = [s["token_logprobs"] for i in range(0, len(windows), 8) for s in self.scores(windows[i:i + 8])]
        values = [x for s in scores for x in s[65:128]]  # llama-perplexity's convention: the second half of each window
        digits = len(printed.split(".")[1])
        self.assertEqual(f"{math.exp(-math.fsum(values) / len(values)):.{digits}f}", printed)


if __name__ == "__main__":
    unittest.main(verbosity=2)
