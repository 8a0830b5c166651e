"""What the models say greedily: 64 ids of 20 prompts of two models, and two published continuations in every mode.

Each golden sequence is fed whole and the argmax of every position must be the next golden id: by induction that is
the same as generating it. Needs $PLUMB; the golden files are tests/golden/greedy_*.txt.
"""

import functools
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402
import numpy as np  # noqa: E402


@functools.cache
def vocabulary(path):
    fields = h.Weights(path).reader.fields
    return fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.model"].contents()


def text_of(path, ids):
    """The text of ids by the file's own vocabulary."""
    tokens, kind = vocabulary(path)
    pieces = "".join(tokens[i] for i in ids)
    if kind == "llama":
        return pieces.replace("\u2581", " ")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [i for i in range(256) if i not in printable]
    byte_of = {chr(i): i for i in printable} | {chr(256 + n): i for n, i in enumerate(others)}
    return bytes(byte_of[letter] for letter in pieces).decode()


class Greedy(unittest.TestCase):
    def expect(self, path, ids, continuation, **mode):
        y = h.logits(path, ids + continuation[:-1], **mode)
        chosen = np.argmax(y[len(ids) - 1:], axis=-1).tolist()
        first = next((i for i, (a, b) in enumerate(zip(chosen, continuation)) if a != b), None)
        self.assertEqual(chosen, continuation, f"{mode}: first difference at generated id {first}")

    def golden(self, name):
        path, _ = h.real_model(name)
        entries = h.golden(name)
        self.assertEqual(len(entries), 20)
        for entry in entries:
            with self.subTest(text=entry["text"], margin=entry["margin"]):
                self.assertEqual(len(entry["greedy"]), 64)
                self.expect(path, entry["ids"], entry["greedy"], arith="ref32")

    def test_ref32_says_the_golden_ids_of_smollm2(self):
        self.golden("smollm2")

    def test_ref32_says_the_golden_ids_of_gemma(self):
        self.golden("gemma")

    def test_every_mode_says_the_published_continuations(self):
        present, lacking = h.isas()
        for isa in lacking:
            print(f"skipped: this CPU has no {isa}", flush=True)
        for name, (ids, continuation) in h.SHORT.items():
            path, _ = h.real_model(name)
            for arith, isa in [("ref64", None), ("ref32", None), *(("fast", isa) for isa in present)]:
                with self.subTest(name, arith=arith, isa=isa):
                    self.expect(path, ids, continuation, arith=arith, isa=isa)

    def test_run_writes_the_published_continuations_and_nothing_else(self):
        for name, (ids, continuation) in h.SHORT.items():
            path, _ = h.real_model(name)
            begin = 1 if name == "gemma" else 0  # the tokenizer adds the BOS id itself
            for arith in ("ref64", "ref32", "fast"):
                with self.subTest(name, arith=arith):
                    out = h.plumb("run", "-m", path, "-p", text_of(path, ids[begin:]), "-n", len(continuation),
                                  "--temp", 0, "--arith", arith)
                    self.assertEqual(out.rstrip("\n"), text_of(path, continuation).rstrip("\n"))


if __name__ == "__main__":
    unittest.main()
