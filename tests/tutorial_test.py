"""The commands of docs/tutorial-first-divergence.md print what the page says."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402

PAGE = h.ROOT / "docs" / "tutorial-first-divergence.md"


def blocks():
    return re.findall(r"```\n(.*?)```", PAGE.read_text(), re.S)


class Tutorial(unittest.TestCase):
    def test_every_command_runs_and_prints_what_the_page_says(self):
        model = h.fetch.fetch("smollm2")
        outputs, commands = [], 0
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(model, Path(folder, "SmolLM2-135M-Instruct.Q4_1.gguf"))
            for block in blocks():
                if not block.startswith("plumb "):  # what the command before it prints, in parts
                    for line in block.splitlines():
                        self.assertIn(line, outputs[-1])
                    continue
                for line in block.splitlines():
                    r = subprocess.run([h.PLUMB, *shlex.split(line)[1:]], cwd=folder, capture_output=True, text=True, timeout=300)
                    self.assertIn(r.returncode, (0, 1, 2), f"{line}\n{r.stderr}")
                    outputs.append(r.stdout)
                    commands += 1
        self.assertEqual(commands, 6)
        right, wrong = outputs[0], outputs[1]
        self.assertIn("a thriving metropolis", right)
        self.assertIn("plagued by", wrong)
        self.assertNotEqual(right, wrong)
        self.assertTrue(outputs[2].startswith("["))


if __name__ == "__main__":
    unittest.main(verbosity=2)
