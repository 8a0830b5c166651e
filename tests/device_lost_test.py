"""A kernel that fails under `plumb serve --backend cuda`: 503, and soon answers again from another process, at the same port."""

import http.client
import shutil
import signal
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / d) for d in ("tools", "oracle")]

import harness as h  # noqa: E402
from serving import PLUMB, Server  # noqa: E402

POISON = "z"  # whose token the library of tests/tools/failing_device.cpp fails at
FAILING = Path(PLUMB).parent / "failing_device" / "libplumb_cuda.so"


@unittest.skipUnless(FAILING.exists(), "built without tests")
class DeviceLost(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.plumb = shutil.copy(PLUMB, cls.folder.name)  # beside its own library, whatever lies beside the other
        shutil.copy(FAILING, cls.folder.name)
        cls.model = next(str(path) for case, path in h.small_models() if case.name == "llama-Q4_0")

    def setUp(self):
        token = h.plumb("tokenize", "-m", self.model, "-p", "b" + POISON).split()[-3]
        self.server = Server("--backend", "cuda", plumb=self.plumb, model=self.model, FAILING_TOKEN=token)

    def ask(self, path, **body):
        status, _, answer = self.server.ask("POST", path, body)
        return status, answer.get("choices") or answer.get("data") or answer["error"].get("plumb", {}).get("code")

    def complete(self, prompt):
        return self.ask("/v1/completions", prompt=prompt, max_tokens=4, temperature=0)

    def again(self):
        """The first answer that is not 503; a connection that the ending process has taken may be cut."""
        until = time.time() + 60
        while True:
            try:
                answer = self.complete("ab c")
            except (ConnectionError, http.client.HTTPException):
                answer = 503, None
            if answer[0] != 503 or time.time() > until:
                return answer
            time.sleep(0.05)

    def stopped(self):
        """What the server said until it was stopped."""
        self.server.process.send_signal(signal.SIGTERM)
        log = self.server.process.communicate(timeout=60)[1]
        self.assertEqual(self.server.process.returncode, 0, log)
        return log

    def test_another_process_goes_on_after_a_failed_answer(self):
        before = self.complete("ab c")
        self.assertEqual(before[0], 200)
        self.assertEqual(self.complete("b" + POISON), (503, "cuda.failed"))
        self.assertEqual(self.again(), before)
        self.assertIn("lost its device", self.stopped())

    def test_another_process_goes_on_after_a_failed_embedding(self):
        before = self.complete("ab c")
        self.assertEqual(self.ask("/v1/embeddings", input="b" + POISON), (503, "cuda.failed"))
        self.assertEqual(self.again(), before)
        self.stopped()

    def test_a_device_that_fails_at_once_again_and_again_is_given_up(self):
        for _ in range(3):
            self.again()
            self.complete("b" + POISON)
        self.assertIn("too often", self.server.process.communicate(timeout=60)[1])
        self.assertEqual(self.server.process.returncode, 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
