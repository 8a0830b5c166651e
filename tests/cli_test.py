"""The command as a person meets it: what lands on which stream, exit statuses, stops, interrupts, damaged files."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "scripts")]

import fetch  # noqa: E402

PLUMB = os.environ.get("PLUMB") or str(Path(__file__).resolve().parents[1] / "build" / "release" / "plumb")
MODEL = str(fetch.fetch("smollm2"))


def run(*arguments, env=None, **more):
    return subprocess.run([PLUMB, *map(str, arguments)], stdout=more.pop("stdout", subprocess.PIPE),
                          stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, timeout=120, **more)


def text(*arguments, **more):
    r = run("run", "-m", MODEL, "--temp", "0", *arguments, **more)
    assert r.returncode == 0, r.stderr
    return r.stdout.decode()


class Output(unittest.TestCase):
    def test_standard_output_holds_the_continuation_and_nothing_else(self):
        r = run("run", "-m", MODEL, "--tokens", "19556,905", "-n", "16", "--temp", "0")
        self.assertEqual(r.stdout.decode(), text("--tokens", "19556,905", "-n", "16", "-q"))
        self.assertIn(b"answer 16 tokens", r.stderr)
        self.assertEqual(run("run", "-m", MODEL, "--tokens", "19556,905", "-n", "4", "-q").stderr, b"")

    def test_escapes_in_the_prompt_are_read_unless_told_otherwise(self):
        self.assertEqual(text("-p", "Hello world\\n", "-n", "8"), text("-p", "Hello world\n", "-n", "8"))
        self.assertNotEqual(text("-p", "Hello world\\n", "-n", "8", "--no-escape"), text("-p", "Hello world\n", "-n", "8"))

    def test_a_prompt_from_a_file_is_the_same_prompt(self):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("Once upon a time")
            f.flush()
            self.assertEqual(text("-f", f.name, "-n", "8"), text("-p", "Once upon a time", "-n", "8"))

    def test_the_same_seed_gives_the_same_text_for_any_threads_and_pieces(self):
        draws = {run("run", "-m", MODEL, "-p", "Once upon a time", "-n", "24", "-q", "-s", "7", "--temp", "1", *more).stdout
                 for more in ([], ["-t", "1"], ["-t", "3", "-ub", "2"], ["--no-fusion"], ["--isa", "scalar"])}
        self.assertEqual(len(draws), 1)
        other = run("run", "-m", MODEL, "-p", "Once upon a time", "-n", "24", "-q", "-s", "8", "--temp", "1").stdout
        self.assertNotIn(other, draws)

    def test_without_a_device_fallback_answers_on_the_cpu_and_says_so(self):
        cuda = ["run", "-m", MODEL, "-p", "Hi", "-n", "4", "--temp", "0", "--backend", "cuda"]
        refused = run(*cuda)
        if refused.returncode == 0:
            self.skipTest("a device is here")
        self.assertEqual(refused.returncode, 4)
        fallen = run(*cuda, "--fallback")
        self.assertIn(b"on the CPU instead", fallen.stderr)
        self.assertEqual(fallen.stdout.decode(), text("-p", "Hi", "-n", "4", "--act", "16"))

    def test_flags_can_come_from_the_environment(self):
        self.assertEqual(text("-p", "Hi", env={"PLUMB_ARG_PREDICT": "5"}), text("-p", "Hi", "-n", "5"))

    def test_a_stop_string_ends_the_text_before_it(self):
        whole = text("-p", "One, two, three,", "-n", "24")
        self.assertIn("five", whole)
        self.assertEqual(text("-p", "One, two, three,", "-n", "24", "-r", "five"), whole[:whole.index("five")])

    def test_penalties_and_filters_change_the_choice(self):
        plain = text("-p", "One, two, three,", "-n", "16")
        self.assertNotEqual(text("-p", "One, two, three,", "-n", "16", "--repeat-penalty", "2"), plain)
        one = run("run", "-m", MODEL, "-p", "One, two, three,", "-n", "16", "-q", "--top-k", "1", "--temp", "2").stdout
        self.assertEqual(one.decode(), plain)
        five = run("tokenize", "-m", MODEL, "-p", " five", "--ids").stdout.decode().strip(" []\n")
        self.assertEqual(text("-p", "One", "-n", "3", "-l", f"{five}+1000"), " five five five")
        self.assertNotIn("five", text("-p", "One, two, three,", "-n", "24", "-l", f"{five}-1000"))
        narrow = run("run", "-m", MODEL, "-p", "One", "-n", "8", "-q", "--mirostat", "2", "--mirostat-ent", "0.001", "-s", "1").stdout
        self.assertEqual(narrow.decode(), text("-p", "One", "-n", "8"))

    def test_a_full_context_ends_the_answer_with_a_word(self):
        r = run("run", "-m", MODEL, "-p", "Hi", "-c", "8", "--temp", "0", "--ignore-eos")
        self.assertEqual(r.returncode, 0)
        self.assertIn(b"the context of 8 tokens is full", r.stderr)

    def test_show_and_inspect_know_the_model(self):
        self.assertIn(b"blk.29.ffn_out", run("show", MODEL).stdout)
        self.assertIn(b"linear*2+glu", run("show", MODEL, "--plan").stdout)
        self.assertEqual(json.loads(run("inspect", MODEL, "--json").stdout)["version"], 3)

    def test_a_named_value_has_shape_and_statistics(self):
        out = run("logits", "-m", MODEL, "--tokens", "1,2,3", "--stop-after", "blk.0.attn_q", "--all").stdout.decode()
        self.assertEqual(out.count("shape [9, 64] rms"), 3)
        self.assertIn("max", run("logits", "-m", MODEL, "--tokens", "1", "--stats", "--top", "3").stdout.decode())


class Failures(unittest.TestCase):
    def expect(self, status, words, *arguments, **more):
        r = run(*arguments, **more)
        last = r.stderr.decode().strip().splitlines()[-1]
        self.assertEqual(r.returncode, status, last)
        for word in words:
            self.assertIn(word, last)
        self.assertTrue(r.stdout is None or r.stdout == b"", r.stdout)

    def test_a_wrong_command_line_is_status_4_and_names_the_flag(self):
        self.expect(4, ["--tmep", "--temp"], "run", "--tmep", "0", "-p", "x")
        self.expect(4, ["rnu", "did you mean run"], "rnu")
        self.expect(4, ["expected a command"])
        self.expect(4, ["expected a prompt"], "run", "-m", MODEL)
        self.expect(4, ["token ids"], "logits", "-m", MODEL, "--tokens", "1,x")
        self.expect(4, ["0 to 49151", "99999"], "logits", "-m", MODEL, "--tokens", "99999")
        self.expect(4, ["blk.0.attn_q"], "logits", "-m", MODEL, "--tokens", "1", "--stop-after", "blk.0.atn_q")
        self.expect(4, ["--top-p", "nan"], "run", "-m", MODEL, "-p", "x", "--top-p", "nan")
        self.expect(4, ["--logit-bias", "5x1"], "run", "-m", MODEL, "-p", "x", "-l", "5x1")
        self.expect(4, ["--typical", "2"], "run", "-m", MODEL, "-p", "x", "--typical", "2")
        self.expect(4, ["scalar"], "run", "-m", MODEL, "-p", "x", env={"PLUMB_ISA": "mmx"})
        self.expect(4, ["--split-mode", "tensor"], "run", "-m", MODEL, "-p", "x", "-sm", "layer")
        self.expect(4, ["--act", "--backend cuda with f16"], "run", "-m", MODEL, "-p", "x", "--act", "f16")
        self.expect(4, ["8 tokens of context"], "run", "-m", MODEL, "-c", "8", "--tokens", ",".join(["1"] * 9))

    def test_faults_and_diagnoses_name_what_they_do_not_know(self):
        self.expect(4, ["NOPE", "plumb faults list"], "faults", "show", "NOPE")
        self.expect(4, ["D1", "eps"], "run", "-m", MODEL, "-p", "x", "--fault", "D1=7")
        self.expect(2, ["fault.applies", "window"], "logits", "-m", MODEL, "-p", "x", "--fault", "G8")
        self.expect(4, ["another file", "--output"], "faults", "poison", "F1", "-m", MODEL, "-o", MODEL)
        self.expect(4, ["EVIDENCE"], "diagnose")
        self.expect(4, ["THEIRS, or --backend cuda"], "check", "-m", MODEL)
        self.expect(4, ["--max-faults"], "diagnose", MODEL, "-m", MODEL, "--max-faults", "9")
        self.expect(4, ["--type", "Q9"], "probe", "--gguf", "/dev/null/x", "--type", "Q9")

    def test_no_model_is_answered_with_how_to_get_one(self):
        with tempfile.TemporaryDirectory() as empty:
            self.expect(4, ["./dev demo"], "run", "-p", "x", "--models-dir", empty)

    def test_the_only_model_of_the_folder_is_taken(self):
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(MODEL, folder + "/other.gguf")
            self.assertEqual(run("run", "-p", "x", "-n", "1", env={"PLUMB_MODELS": folder}).returncode, 0)

    def test_a_damaged_model_is_status_2_and_says_where(self):
        self.expect(2, ["No such file"], "run", "-m", "/nonexistent.gguf", "-p", "x")
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            f.write(Path(MODEL).read_bytes()[:5_000_000])
            f.flush()
            self.expect(2, ["tensor token_embd.weight", "byte"], "run", "-m", f.name, "-p", "x")

    def test_a_full_disk_is_status_6(self):
        with open("/dev/full", "wb") as full:
            self.expect(6, ["standard output"], "run", "-m", MODEL, "-p", "x", "-n", "4", "-q", stdout=full)
        self.expect(6, ["/dev/full"], "logits", "-m", MODEL, "--tokens", "1", "-o", "/dev/full/x.npy")

    def test_a_closed_pipe_ends_quietly(self):
        p = subprocess.Popen([PLUMB, "run", "-m", MODEL, "-p", "x", "-n", "200", "--ignore-eos", "-q"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdout.read(3)
        p.stdout.close()
        self.assertEqual(p.stderr.read(), b"")
        self.assertIn(p.wait(60), (0, 141, -signal.SIGPIPE))
        p.stderr.close()

    def test_an_interrupt_keeps_the_text_and_is_status_130(self):
        p = subprocess.Popen([PLUMB, "run", "-m", MODEL, "-p", "x", "-n", "5000", "--ignore-eos"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(p.stdout.read(3))
        p.send_signal(signal.SIGINT)
        _, errors = p.communicate(timeout=30)
        self.assertEqual(p.returncode, 130)
        self.assertIn(b"interrupted", errors)

    def test_a_model_cut_while_it_is_used_is_status_5(self):
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            shutil.copyfile(MODEL, f.name)
            p = subprocess.Popen([PLUMB, "run", "-m", f.name, "-p", "x", "-n", "5000", "--ignore-eos", "--arith", "ref32"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertTrue(p.stdout.read(1))
            os.truncate(f.name, 4096)
            _, errors = p.communicate(timeout=60)
            self.assertEqual(p.returncode, 5, errors)
            self.assertIn(b"file.lost", errors)


class PackedWeights(unittest.TestCase):
    """The copy of the packed weights that the next load maps."""

    PROMPT = ("--tokens", "19556,905", "-n", "8")

    def test_the_text_is_the_same_without_with_a_new_and_with_a_kept_copy(self):
        with tempfile.TemporaryDirectory() as folder:
            env = {"PLUMB_PACKED": folder}
            expected = text(*self.PROMPT, "--no-repack-cache", env=env)
            self.assertEqual(os.listdir(folder), [])
            self.assertEqual(text(*self.PROMPT, env=env), expected)
            (name,) = os.listdir(folder)
            self.assertEqual(text(*self.PROMPT, env=env), expected)
            self.assertEqual(os.listdir(folder), [name])

    def test_a_copy_cut_or_flipped_is_made_anew(self):
        with tempfile.TemporaryDirectory() as folder:
            env = {"PLUMB_PACKED": folder}
            expected = text(*self.PROMPT, env=env)
            kept = Path(folder) / os.listdir(folder)[0]
            whole = kept.read_bytes()
            for damaged in (whole[:-1], whole[:100], b"", whole[:50000000] + bytes([whole[50000000] ^ 1]) + whole[50000001:]):
                kept.write_bytes(damaged)
                self.assertEqual(text(*self.PROMPT, env=env), expected)
                self.assertEqual(kept.read_bytes(), whole)

    def test_another_model_under_the_same_name_is_noticed(self):
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model.gguf"
            shutil.copyfile(MODEL, model)
            env = {"PLUMB_PACKED": str(Path(folder) / "packed")}
            before = run("logits", "-m", model, "--tokens", "1,2,3", env=env).stdout
            bytes_ = bytearray(model.read_bytes())
            for i in range(40000000, 40400000):  # codes and scales of some layer
                bytes_[i] ^= 1
            model.write_bytes(bytes_)
            after = run("logits", "-m", model, "--tokens", "1,2,3", env=env).stdout
            self.assertNotEqual(after, before)
            self.assertEqual(after, run("logits", "-m", model, "--tokens", "1,2,3", "--no-repack-cache", env=env).stdout)

    def test_a_first_load_holds_the_weights_once(self):
        with tempfile.TemporaryDirectory() as folder:
            peaks = []
            for _ in ("first", "kept"):
                p = subprocess.Popen([PLUMB, "run", "-m", MODEL, *self.PROMPT, "-q"], env={**os.environ, "PLUMB_PACKED": folder},
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                _, status, used = os.wait4(p.pid, 0)
                p.returncode = status
                self.assertEqual(status, 0)
                peaks.append(used.ru_maxrss)  # KiB
            self.assertLess(peaks[0], peaks[1] + 20 * 1024, "the model and its packed copy were in memory together")

    def test_a_folder_that_cannot_be_written_does_not_matter(self):
        self.assertEqual(text(*self.PROMPT, env={"PLUMB_PACKED": "/proc/none"}), text(*self.PROMPT, "--no-repack-cache"))


class Speculation(unittest.TestCase):
    def test_drafts_change_no_byte_of_the_text(self):
        repeated = "1 apple, 2 pears, 3 plums. 1 apple, 2 pears, 3 plums. 1 apple, 2"
        for more in (("--temp", "0"), ("--temp", "1", "-s", "5"), ("--temp", "0", "--draft-max", "3", "-t", "1", "-ub", "5")):
            plain = run("run", "-m", MODEL, "-p", repeated, "-n", "40", *more)
            drafted = run("run", "-m", MODEL, "-p", repeated, "-n", "40", "--spec", "ngram", *more)
            self.assertEqual(drafted.stdout, plain.stdout)
            self.assertRegex(drafted.stderr.decode(), r"drafts \d+/\d+")
            self.assertNotIn(b"drafts", plain.stderr)

    def test_the_end_of_the_context_is_where_it_was(self):
        plain, drafted = (run("run", "-m", MODEL, "-p", "a b a b a b a b", "-c", "40", "--temp", "0", "--ignore-eos", *more)
                          for more in ((), ("--spec", "ngram")))
        self.assertEqual(drafted.stdout, plain.stdout)
        self.assertIn(b"context full", drafted.stderr)

    def test_it_is_refused_where_it_does_not_exist(self):
        r = run("run", "-m", MODEL, "-p", "x", "--spec", "ngram", "--arith", "ref32")
        self.assertEqual(r.returncode, 4)
        self.assertIn(b"usage.spec", r.stderr)


class Perplexity(unittest.TestCase):
    def score(self, *arguments):
        return run("perplexity", "-m", MODEL, "-c", "32", "--chunks", "2", *arguments)

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.text = Path(self.folder.name, "text")
        self.text.write_text("The quick brown fox jumps over the lazy dog. " * 10)
        self.base = Path(self.folder.name, "base")

    def test_a_run_compared_with_itself_differs_in_nothing(self):
        r = self.score("-f", self.text, "--kl-divergence-base", self.base)
        self.assertRegex(r.stdout.decode(), r"^Final estimate: PPL = [0-9.]+ \+/- [0-9.]+\n$")
        same = self.score("--kl-divergence-base", self.base, "--kl-divergence", "-t", "1", "--isa", "scalar").stdout.decode()
        self.assertRegex(same, r"Maximum KLD +: 0\n")
        self.assertIn("Same top p                  : 100 ", same)
        other = self.score("--kl-divergence-base", self.base, "--kl-divergence", "--act", "8").stdout.decode()
        self.assertNotRegex(other, r"Maximum KLD +: 0\n")

    def test_what_is_missing_or_damaged_is_said_and_leaves_nothing(self):
        self.assertEqual(self.score().returncode, 4)
        self.assertEqual(self.score("--kl-divergence").returncode, 4)
        self.text.write_text("too short")
        r = self.score("-f", self.text, "--kl-divergence-base", self.base)
        self.assertEqual(r.returncode, 4)
        self.assertIn(b"at least 64 tokens", r.stderr)
        self.assertFalse(self.base.exists())
        self.base.write_bytes(b"PLUMBKL1" + bytes(40))
        r = self.score("--kl-divergence-base", self.base, "--kl-divergence")
        self.assertEqual(r.returncode, 5)
        self.assertIn(b"n_ctx", r.stderr)


class Quantize(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = Path(self.folder.name, "out.gguf")

    def quantize(self, *arguments, **more):
        return run("quantize", *arguments, **more)

    def left(self):
        return sorted(p.name for p in Path(self.folder.name).iterdir())

    def test_the_bytes_do_not_depend_on_threads_and_the_file_runs(self):
        other = Path(self.folder.name, "other.gguf")
        for path, threads in ((self.out, "1"), (other, "3")):
            r = self.quantize(MODEL, path, "Q8_0", threads, "--allow-requantize")
            self.assertEqual(r.returncode, 0, r.stderr)
            self.assertIn(b"a second time", r.stderr)
        self.assertEqual(self.out.read_bytes(), other.read_bytes())
        answer = run("run", "-m", self.out, "--tokens", "19556,905", "-n", "8", "--temp", "0", "-q").stdout
        self.assertEqual(answer.decode(), text("--tokens", "19556,905", "-n", "8"))
        tensors = json.loads(run("inspect", "--json", self.out).stdout)
        self.assertIn("Q8_0", json.dumps(tensors))

    def test_what_cannot_be_done_is_said_and_leaves_nothing(self):
        self.assertEqual(self.quantize(MODEL, self.out, "Q9_9").returncode, 4)
        r = self.quantize(MODEL, self.out, "Q8_0")
        self.assertEqual(r.returncode, 4)
        self.assertIn(b"--allow-requantize", r.stderr)
        self.assertEqual(self.quantize(self.out, self.out, "Q8_0").returncode, 2)
        self.assertEqual(self.quantize(MODEL, MODEL, "Q8_0", "--allow-requantize").returncode, 4)
        self.assertEqual(self.quantize(MODEL, "/absent/out.gguf", "Q8_0", "--allow-requantize").returncode, 6)
        self.assertEqual(self.left(), [])

    def test_a_full_disk_and_an_interrupt_leave_the_old_file(self):
        self.out.write_bytes(b"precious")

        def small():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        r = self.quantize(MODEL, self.out, "Q4_K_M", "--allow-requantize", preexec_fn=small)
        self.assertEqual(r.returncode, 6, r.stderr)
        self.assertEqual((self.out.read_bytes(), self.left()), (b"precious", ["out.gguf"]))
        p = subprocess.Popen([PLUMB, "quantize", MODEL, self.out, "Q3_K_M", "--allow-requantize"], stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(60), 130)
        self.assertEqual((self.out.read_bytes(), self.left()), (b"precious", ["out.gguf"]))

    def test_a_dry_run_names_every_tensor_and_writes_nothing(self):
        r = self.quantize(MODEL, self.out, "Q4_K_M", "--allow-requantize", "--dry-run")
        self.assertRegex(r.stdout.decode(), r"blk\.0\.attn_q\.weight +Q4_1 -> ")
        self.assertEqual(self.left(), [])


if __name__ == "__main__":
    unittest.main()
