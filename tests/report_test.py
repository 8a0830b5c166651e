"""plumb diff --html: one small page that needs nothing from outside, with everything that the text report says."""

import json
import re
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402

PROMPT = "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun."


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


class Report(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def diff(self, *arguments):
        out = self.folder / "out.html"
        r = subprocess.run([h.PLUMB, "diff", *map(str, arguments), "--html", out], capture_output=True, text=True, timeout=600)
        self.assertIn(r.returncode, (0, 1, 2), r.stderr)
        page = out.read_text()
        self.assertEqual([p.name for p in self.folder.iterdir() if p.name.startswith("out.html")], ["out.html"])
        return page, data_of(page), r.stdout

    def test_the_page_of_a_wrong_rope_base_in_smollm2_is_small_and_whole(self):
        model = Path(h.real_model("smollm2")[0])
        bytes_, key = bytearray(model.read_bytes()), b"llama.rope.freq_base"
        at = bytes_.find(key) + len(key) + 4
        bytes_[at:at + 4] = struct.pack("<f", 20000.0)
        wrong, trace = self.folder / "wrong.gguf", self.folder / "wrong.trace"
        wrong.write_bytes(bytes_)
        h.plumb("trace", "-m", wrong, "-p", PROMPT, "-o", trace)
        page, data, text = self.diff(trace, "-m", model)
        self.assertLess(len(page.encode()), 2_000_000)
        self.assertNotIn("http", page)
        self.assertEqual(data["verdict"], "DIVERGES at blk.0.q_rope  (rope)")
        values, operations = data["maps"]
        self.assertEqual((len(values["cells"]), len(operations["cells"])), (453, 453))
        lit = {c["name"].rsplit(".")[-1] for c in operations["cells"] if not c["score"] <= 2}
        self.assertEqual(lit, {"q_rope", "k_rope"})
        first = next(c for c in values["cells"] if c.get("first"))
        self.assertEqual((first["name"], len(first["tokens"]), len(first["heads"])), ("blk.0.q_rope", 19, 9))
        self.assertLess(first["tokens"][0][2], first["tokens"][-1][2] / 10)  # no rotation at position 0
        self.assertEqual(len(data["tokens"]), 19)
        for word, line in data["lines"]:
            self.assertIn(line, text)

    def test_names_of_a_foreign_trace_are_text(self):
        evil = "</script><img src=x onerror=alert(1)>"
        record = {"value": evil, "tokens": [0, 2], "shape": [2, 1], "data": [1, 2]}
        for name, data in (("a", [1, 2]), ("b", [1, 9])):
            (self.folder / f"{name}.json").write_text(json.dumps(
                {"plumb_trace": 1, "engine": {"name": evil}, "records": [{**record, "data": data}]}))
        page, data, _ = self.diff(self.folder / "a.json", self.folder / "b.json")
        self.assertNotIn("<img", page)
        self.assertEqual(data["maps"][0]["cells"][0]["name"], evil)

    def test_weights_have_a_page_too(self):
        path = next(path for case, path in h.small_models() if case.name == "llama-F32")
        _, data, _ = self.diff("--weights", path, path)
        self.assertEqual((data["level"], len(data["maps"])), ("same", 1))

    def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(self):
        path = next(path for case, path in h.small_models() if case.name == "llama-F32")
        r = subprocess.run([h.PLUMB, "diff", "--weights", path, path, "--html", self.folder / "none" / "x.html"],
                           capture_output=True, text=True)
        self.assertEqual((r.returncode, len(r.stderr.splitlines()), list(self.folder.iterdir())), (6, 1, []), r.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
