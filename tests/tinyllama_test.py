"""A model of TinyLlama's shape with random weights agrees with the NumPy oracle in five formats.

22 layers, 2048 wide, 5632 in the feed-forward, 32 heads over 4 KV heads, rope base 10000, the llama-spm vocabulary.
The prompt is the text "Hello world\\n", whose ids are 1,15043,3186,13. Files (0.6 to 4.4 GB) are made one after the
other and removed. Needs $PLUMB, 5 GB of disk in $TMPDIR or the cache, and 8 GB of memory.
"""

import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402
import make_models  # noqa: E402
import numpy as np  # noqa: E402

IDS = [1, 15043, 3186, 13]
LAYERS = 22


class TinyLlama(unittest.TestCase):
    def check(self, fmt):
        vocabulary = h.fetch.fetch("vocabs") / "ggml-vocab-llama-spm.gguf"
        h.CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR") or h.CACHE) as folder:
            path = str(Path(folder) / f"tinyllama-{fmt}.gguf")
            make_models.write_tinyllama(fmt, path, vocabulary)
            oracle = h.oracle_logits(path, IDS, ["tinyllama", fmt])
            ids = h.plumb("tokenize", "-m", path, "-p", "Hello world\n", "--ids")
            self.assertEqual(json.loads(ids), IDS)
            ref64 = h.logits(path, prompt="Hello world\n", arith="ref64")
            ref32 = h.logits(path, IDS, arith="ref32").astype(np.float64)
            fast = h.logits(path, IDS, "--no-repack-cache").astype(np.float64)
            bound = h.whole_model_bound(LAYERS, h.F16 if fmt in make_models.FLOAT_FORMATS else h.INT8)
            figures = h.relative_max(ref64, oracle), h.relative_max(ref32, oracle), h.relative_rms(fast, oracle)
            print(f"{fmt}: ref64 {figures[0]:.2e}, ref32 {figures[1]:.2e}, fast {figures[2]:.2e} of {bound:.2e}",
                  flush=True)
            self.assertLessEqual(figures[0], 1e-9)
            self.assertLessEqual(figures[1], 1e-4)
            self.assertLessEqual(figures[2], bound)
            self.assertEqual(np.argmax(ref32, axis=-1).tolist(), np.argmax(oracle, axis=-1).tolist())

    def test_f32_agrees_with_the_oracle(self):
        self.check("F32")

    def test_f16_agrees_with_the_oracle(self):
        self.check("F16")

    def test_q4_0_agrees_with_the_oracle(self):
        self.check("Q4_0")

    def test_q8_0_agrees_with_the_oracle(self):
        self.check("Q8_0")

    def test_q6_k_agrees_with_the_oracle(self):
        self.check("Q6_K")


if __name__ == "__main__":
    unittest.main()
