"""`plumb record` as a command, and the recorder for llama.cpp without llama.cpp: names, rows of tensors in memory, and
traces that `plumb diff` reads."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools" / "record")]

import hf_values  # noqa: E402
import llamacpp  # noqa: E402
import llamacpp_names  # noqa: E402
from trace_writer import TraceWriter  # noqa: E402

PLUMB = os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb")


def tensor(array, kind):
    """A ggml tensor over the elements of a view [tokens, heads, dim]."""
    t = llamacpp.Tensor(type=kind, data=array.__array_interface__["data"][0])
    t.ne[:], t.nb[:] = [*array.shape[::-1], 1], [*array.strides[::-1], 0]
    return t


class Command(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.temporary = Path(self.folder.name, "temporary")
        self.temporary.mkdir()
        self.environment = os.environ | {"TMPDIR": str(self.temporary)}
        self.environment.pop("PLUMB_PYTHON", None)

    def script(self, text):
        """A program in the place of python3: what it prints is what `plumb record` started."""
        path = Path(self.folder.name, "python")
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return path

    def record(self, *words, **environment):
        r = subprocess.run([PLUMB, "record", *map(str, words)], capture_output=True, text=True,
                           env=self.environment | environment, timeout=60)
        self.assertEqual(os.listdir(self.temporary), [], "the private folder is gone")
        return r

    def test_arguments_reach_the_script_as_they_are(self):
        python = self.script('shift 2; printf "<%s>" "$PLUMB_RECORD" "$@"; exit 3')
        r = self.record("--python", python, "llamacpp", "-p", "run", "--python", "a b", "--", "-o", "")
        self.assertEqual((r.returncode, r.stdout), (3, "<plumb record llamacpp><-p><run><--python><a b><--><-o><>"))
        r = self.record("llamacpp", "--help", PLUMB_PYTHON=str(python))
        self.assertEqual(r.stdout, "<plumb record llamacpp><--help>")

    def test_the_scripts_are_all_there_and_for_this_user_alone(self):
        python = self.script('cd "$(dirname "$2")"; stat -c %a .; md5sum *.py')
        r = self.record("--python", python, "llamacpp")
        want = subprocess.run("md5sum *.py", shell=True, cwd=ROOT / "tools" / "record", capture_output=True, text=True)
        self.assertEqual(r.stdout, "700\n" + want.stdout)

    def test_wrong_kinds_and_missing_interpreters_are_named(self):
        r = self.record("lamacpp")
        self.assertEqual(r.returncode, 4)
        self.assertIn("did you mean llamacpp?", r.stderr)
        self.assertEqual(self.record().returncode, 4)
        self.assertIn("--foo", self.record("--foo", "llamacpp").stderr)
        r = self.record("--python", "/none", "llamacpp")
        self.assertEqual(r.returncode, 4)
        self.assertIn("PLUMB_PYTHON", r.stderr)

    def test_a_missing_module_comes_with_the_command_that_installs_it(self):
        model = Path(self.folder.name, "m.gguf")
        model.write_text("")
        words = ["--python", sys.executable, "llamacpp", "-m", model, "--tokens", "1,2", "-o", model.with_suffix(".trace")]
        Path(self.folder.name, "llama_cpp.py").write_text("raise ImportError('no llama_cpp')")
        r = self.record(*words, PYTHONPATH=self.folder.name)
        self.assertEqual(r.returncode, 1)
        self.assertIn(f"{sys.executable} -m pip install llama-cpp-python numpy", r.stderr)
        self.assertNotIn("Traceback", r.stderr)
        self.assertEqual(self.record(*words[:-2]).returncode, 4)
        self.assertEqual(self.record(*words[:-1], self.folder.name).returncode, 6)
        self.assertEqual(self.record(*words[:4], "none.gguf", *words[5:]).returncode, 5)

    def test_interrupts_and_the_death_of_the_script_come_through(self):
        python = self.script("kill -9 $$")
        self.assertEqual(self.record("--python", python, "llamacpp").returncode, 128 + signal.SIGKILL)
        python = self.script(f'trap "exit 7" {signal.SIGTERM:d} {signal.SIGINT:d}; echo up; while :; do sleep 0.05; done')
        for number, group in ((signal.SIGINT, True), (signal.SIGTERM, False)):
            p = subprocess.Popen([PLUMB, "record", "--python", str(python), "llamacpp"], stdout=subprocess.PIPE,
                                 env=self.environment, start_new_session=True)
            self.assertEqual(p.stdout.readline(), b"up\n")
            (os.killpg if group else os.kill)(p.pid, number)
            self.assertEqual(p.wait(timeout=20), 7)
            p.stdout.close()
        self.assertEqual(os.listdir(self.temporary), [])


class Names(unittest.TestCase):
    def test_one_name_of_llama_cpp_is_several_values_told_apart_by_the_operation(self):
        self.assertEqual(llamacpp_names.canonical("Qcur-3", "MUL_MAT"), "blk.3.attn_q")
        self.assertEqual(llamacpp_names.canonical("Qcur-3", "ROPE"), "blk.3.q_rope")
        self.assertIsNone(llamacpp_names.canonical("Qcur-3", "SCALE"))
        self.assertEqual(llamacpp_names.canonical("attn_out-0", "MUL_MAT"), "blk.0.attn_output")
        self.assertEqual(llamacpp_names.canonical("ffn_inp-0", "ADD"), "blk.0.attn_out")
        self.assertEqual(llamacpp_names.canonical("result_norm", "MUL"), "output_norm")
        self.assertIsNone(llamacpp_names.canonical("norm-0", "RMS_NORM"))
        self.assertEqual(llamacpp_names.canonical("kq-1", "MUL_MAT"), "blk.1.attn.kq")
        self.assertIsNone(llamacpp_names.canonical("kq-1", "SCALE"))
        self.assertEqual(llamacpp_names.canonical("kqv-1", "MUL_MAT"), "blk.1.attn.kqv")


class Memory(unittest.TestCase):
    def test_rows_are_read_through_strides_in_both_types(self):
        whole = np.arange(2 * 3 * 8, dtype=np.float32).reshape(3, 2, 8)
        view = whole.transpose(1, 0, 2)[:, :, :5]
        np.testing.assert_array_equal(llamacpp.rows_of(tensor(view, 0)), view)
        halves = whole.astype(np.float16)
        np.testing.assert_array_equal(llamacpp.rows_of(tensor(halves, 1)), whole)
        np.testing.assert_array_equal(llamacpp.rows_of(tensor(whole[:1], 0)), whole[0])
        self.assertIsNone(llamacpp.rows_of(tensor(whole, 8)), "codes are not recorded")


class Traces(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name, "theirs.trace")

    def writer(self):
        return TraceWriter(self.path, {"name": "llama.cpp"}, {"file": "m.gguf"}, [5, 6, 7], {"name": "llama.cpp"})

    def test_a_trace_is_read_by_plumb_and_the_last_node_of_a_value_counts(self):
        recorder = llamacpp.Recorder(None, 3, {"attn_q": 2})
        rows = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
        recorder.nodes = [("blk.0.attn_q", "Qcur-0", "MUL_MAT", rows), (None, "norm-0", "RMS_NORM", rows),
                          (None, "norm-0", "RMS_NORM", rows), ("blk.0.attn_q", "Qcur-0", "ADD", rows + 1),
                          (None, "kq-0", "MUL_MAT", np.zeros((2, 3, 32), np.float32))]
        writer = self.writer()
        recorder.write(writer)
        writer.close()
        records = [json.loads(line) for line in (self.path / "records.jsonl").read_text().splitlines()]
        self.assertEqual([(r["raw"], r.get("value"), r["shape"]) for r in records],
                         [("Qcur-0", None, [3, 8]), ("norm-0", None, [3, 8]), ("norm-0#2", None, [3, 8]),
                          ("Qcur-0#2", "blk.0.attn_q", [3, 2, 4])])
        r = subprocess.run([PLUMB, "diff", self.path, self.path], capture_output=True, text=True)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("bit for bit", r.stdout)
        self.assertEqual(os.listdir(self.folder.name), ["theirs.trace"])

    def test_values_inside_attention_are_written_token_first_and_keys_that_a_window_dropped_are_zero(self):
        recorder = llamacpp.Recorder(None, 3, {})
        probs = np.random.default_rng(1).random((2, 3, 5)).astype(np.float32)  # [heads, tokens, keys]
        recorder.nodes = [("blk.0.attn.probs", "kq_soft_max-0", "SOFT_MAX", probs), ("blk.1.attn.kq", "kq-1", "MUL_MAT", probs[0])]
        values = hf_values.Values("llama", 2, 2)
        values.start(3), values.start(1)  # the second call: position 3, of whose four keys the cache has two
        values.weights("model.layers.2.self_attn", np.ones((1, 2, 1, 2), np.float32))
        with TraceWriter(self.path, {"name": "llama.cpp"}, {"file": "m.gguf"}, [5, 6, 7, 8], {"name": "x"}) as writer:
            recorder.write(writer)
            values.write(writer, lambda array: (array, None))
        first, one_head, windowed = [json.loads(line) for line in (self.path / "records.jsonl").read_text().splitlines()]
        self.assertEqual((first["shape"], one_head["shape"]), ([3, 2, 5], [3, 1, 5]))
        self.assertEqual((windowed["value"], windowed["shape"], windowed["tokens"]), ("blk.2.attn.probs", [1, 2, 4], [3, 1]))
        data = (self.path / "values-00001.safetensors").read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        np.testing.assert_array_equal(np.frombuffer(data, np.float32, 30, start).reshape(3, 2, 5), probs.transpose(1, 0, 2))
        np.testing.assert_array_equal(np.frombuffer(data[-32:], np.float32), [0, 0, 1, 1] * 2)

    def test_gemmas_unnamed_output_matrix_is_the_product_after_the_heads(self):
        recorder = llamacpp.Recorder(None, 1, {})
        recorder.nodes = [("blk.4.attn", "kqv_out-4", "RESHAPE", None)]
        self.assertEqual(recorder.unnamed("node_29", "MUL_MAT"), "blk.4.attn_output")
        self.assertIsNone(recorder.unnamed("node_29", "ADD"))

    def test_nothing_is_overwritten_and_nothing_half_written_is_left(self):
        writer = self.writer()
        writer.abandon()
        self.assertEqual(os.listdir(self.folder.name), [])
        self.path.mkdir()
        with self.assertRaises(FileExistsError):
            self.writer()

    def test_what_goes_wrong_in_the_callback_comes_back_as_an_exception(self):
        recorder = llamacpp.Recorder(None, 1, {})
        t = tensor(np.zeros((1, 1, 4), np.float32), 0)
        self.assertTrue(recorder(ctypes.addressof(t), False, None))  # no library to name the operation
        self.assertIsInstance(recorder.failure, AttributeError)


if __name__ == "__main__":
    unittest.main()
