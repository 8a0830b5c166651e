"""plumb chat as a person meets it: a real terminal (a pty) of 80 and of 40 columns, pipes, kills, a full disk."""

import fcntl
import json
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "scripts")]

import fetch  # noqa: E402

PLUMB = os.environ.get("PLUMB") or str(Path(__file__).resolve().parents[1] / "build" / "release" / "plumb")
MODEL = str(fetch.fetch("smollm2"))


class Home(unittest.TestCase):
    """A home of its own for each test: no configuration, no history."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.addCleanup(self.folder.cleanup)

    def environment(self, **more):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PLUMB_ARG_", "XDG_", "NO_COLOR"))}
        return {**clean, "HOME": str(self.home), "TERM": "xterm", "LC_ALL": "C.UTF-8", "PLUMB_PACKED": PACKED, **more}

    def pipe(self, text, *arguments, context=512, **more):
        return subprocess.run([PLUMB, "chat", "-m", MODEL, "--temp", "0", "-c", str(context), "-n", "8", *arguments],
                              input=text.encode(), capture_output=True, timeout=120,
                              env=self.environment(**more.pop("env", {})), **more)

    def journals(self):
        return sorted((self.home / ".local/state/plumb/chat").glob("*.journal"))


PACKED = tempfile.mkdtemp(prefix="plumb-chat-packed-")  # loaded often: packed once


def tearDownModule():
    subprocess.run(["rm", "-r", PACKED], check=True)


class Terminal:
    """The program behind a pty."""

    def __init__(self, arguments, environment, columns=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(PLUMB, [PLUMB, "chat", "-m", MODEL, "--temp", "0", "-c", "512", *arguments], environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.seen = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def expect(self, text, seconds=60):
        """Waits for the text and returns what came before and with it."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            if time.monotonic() > end:
                raise AssertionError(f"{text!r} did not come: {self.seen[-2000:]!r}")
            self.read(0.5)
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def line(self, text):
        self.type(text + "\r")

    def wait(self, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still running: {self.seen[-1000:]!r}")

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


class Pipes(Home):
    def test_standard_output_holds_the_answers_and_nothing_else(self):
        r = self.pipe("What is 2+2?\n/stats\nAnd 3+3?\n")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertNotIn(b"\x1b", r.stdout + r.stderr)
        self.assertNotIn(b"You>", r.stdout)
        self.assertEqual(len(r.stdout.splitlines()) >= 2, True)
        self.assertIn(b"first token", r.stderr)
        self.assertEqual(self.journals(), [])

    def test_the_second_turn_computes_only_new_tokens(self):
        r = self.pipe("Hello there\nAnd now?\n/stats\n")
        prompt, cached = map(int, re.search(rb"prompt +(\d+) tokens, (\d+) cached", r.stderr).groups())
        self.assertGreater(cached, prompt // 2)

    def test_the_answer_with_a_cache_is_the_answer_without(self):
        with_cache = self.pipe("Hi\nName a colour\n").stdout
        first = self.pipe("Hi\n").stdout.decode()
        saved = self.home / "h.json"
        saved.write_text(json.dumps([{"role": "user", "content": "Hi"},
                                     {"role": "assistant", "content": first.rstrip("\n")}]))
        self.assertEqual((first + self.pipe(f"/load {saved}\nName a colour\n").stdout.decode()).encode(), with_cache)

    def test_blocks_and_backslashes_make_one_message(self):
        path = self.home / "out.json"
        self.pipe(f'"""\nline one\n/exit\n"""\na\\\nb\n/save {path}\n')
        saved = json.loads(path.read_text())
        self.assertEqual([m["content"] for m in saved["messages"] if m["role"] == "user"], ["line one\n/exit", "a\nb"])
        self.assertEqual(saved["format"], "plumb-history")
        self.assertRegex(saved["messages"][0]["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

    def test_an_unknown_command_is_an_error_and_never_sent(self):
        r = self.pipe("/sav x\n")
        self.assertEqual((r.stdout, r.returncode), (b"", 4))
        self.assertIn(b"did you mean /save?", r.stderr)

    def test_one_turn_and_a_system_prompt(self):
        r = self.pipe("unused\n", "-st", "-p", "Hi", "-sys", "Be brief.", "--save-history", self.home / "s.json")
        self.assertEqual(r.returncode, 0, r.stderr)
        saved = json.loads((self.home / "s.json").read_text())
        self.assertEqual(saved["system"], "Be brief.")
        self.assertEqual(len(saved["messages"]), 2)

    def test_a_full_context_leaves_out_messages_and_says_so(self):
        r = self.pipe("".join(f"{i} " + "word " * 30 + "\n" for i in range(8)), context=160)
        self.assertIn(b"no longer sees the first", r.stderr)
        self.assertEqual(r.returncode, 0)
        long = self.pipe("word " * 300 + "\n", context=160)
        self.assertIn(b"chat.too_long", long.stderr)
        self.assertEqual(long.returncode, 1)

    def test_order_is_default_file_environment_command_line(self):
        config = self.home / "c.toml"
        config.write_text("[generation]\nmax_tokens = 3\n[interface]\nprompt_user = 'x'\n")
        arguments = [PLUMB, "chat", "-m", MODEL, "-c", "64", "--config", str(config)]

        def setting(*more, **environment):
            r = subprocess.run([*arguments, *more], input=b"/config\n", capture_output=True,
                               env=self.environment(**environment), timeout=60)
            return re.search(r"max_tokens = (.*)", r.stderr.decode())[1]

        self.assertEqual(setting(), "3  # file")
        self.assertEqual(setting(PLUMB_ARG_PREDICT="4"), "4  # environment")
        self.assertEqual(setting("-n", "5", PLUMB_ARG_PREDICT="4"), "5  # command line")

    def test_a_wrong_configuration_ends_with_4_line_and_column(self):
        config = self.home / "c.toml"
        for text, place in (("[generation]\ntopk = 3\n", ":2:1"), ("[generation]\ntop_k = 'x'\n", ":2:9")):
            config.write_text(text)
            r = self.pipe("", "--config", config)
            self.assertEqual(r.returncode, 4)
            self.assertIn(str(config) + place, r.stderr.decode())
        self.assertEqual(self.pipe("", "--config", "/no/such").returncode, 4)

    def test_config_save_keeps_what_was_set(self):
        config = self.home / ".config/plumb/config.toml"
        self.assertEqual(self.pipe("/set top_k 7\n/config save\n").returncode, 0)
        self.assertEqual(config.read_text(), "[generation]\ntop_k = 7\n")
        self.assertIn(b"top_k = 7", self.pipe("/set\n").stderr)
        self.assertEqual(self.pipe("/set top_p nan\n").returncode, 4)
        self.assertIn(b"temperature = 0.5", self.pipe("/set temp 0.5\n").stderr)  # as --temp
        self.assertEqual(self.pipe("/set temper 0.5\n").returncode, 4)

    def test_a_full_disk_keeps_the_old_file(self):
        path = self.home / "old.json"
        path.write_text("old")

        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

        r = self.pipe(f"Hi\n/save {path}\n", preexec_fn=small_files, env={"PLUMB_ARG_NO_REPACK_CACHE": "1"})
        self.assertIn(b"file.write", r.stderr)
        self.assertEqual(path.read_text(), "old")
        self.assertEqual([p.name for p in self.home.iterdir() if p.name.startswith("old")], ["old.json"])

    def test_a_disk_of_a_few_kilobytes_holds_every_turn_that_was_not_complained_of(self):
        for kib in (4, 8, 16):
            disk = self.home / f"disk{kib}"
            disk.mkdir()
            if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "plumb-test", disk], capture_output=True).returncode:
                self.skipTest("only who may mount has a disk that small")
            self.addCleanup(subprocess.run, ["umount", disk])
            old = disk / "old.json"
            old.write_text("old")
            turns = 40
            r = self.pipe("/clear\nHi\n" * turns + f"/save {old}\n", "--history-file", disk / "j")
            kept, data, at = 0, (disk / "j").read_bytes(), 8
            while at + 8 <= len(data):
                length = struct.unpack_from("<I", data, at)[0]
                kept += json.loads(data[at + 8:at + 8 + length])["type"] == "turn"
                at += 8 + length
            complaints = r.stderr.count(b"journal.write") + r.stderr.count(b"journal.open")
            self.assertGreater(complaints, 0)
            self.assertEqual(kept, turns - complaints, r.stderr[-500:])
            self.assertEqual(old.read_text(), "old")
            self.assertNotEqual(r.returncode, 0)

    def test_another_model_that_is_refused_leaves_the_old_one(self):
        r = self.pipe("/model /no/such.gguf\nHi\n")
        self.assertNotEqual(r.stdout, b"")
        self.assertIn(b"/no/such.gguf", r.stderr)


class AtATerminal(Home):
    def open(self, *arguments, columns=80, tokens=8, **environment):
        t = Terminal(["-n", str(tokens), *arguments], self.environment(**environment), columns)
        t.expect("You> ")
        return t

    def test_a_conversation_with_commands(self):
        t = self.open()
        t.line("Hello")
        t.expect("Assistant> ")
        t.expect("context")
        t.expect("You> ")
        t.line("/system Be brief.")
        t.expect("is set")
        t.line("/regen")
        t.expect("Assistant> ")
        t.expect("You> ")
        t.type("/sta\t")
        t.expect("ts ")
        t.type("\r")
        t.expect("first token")
        t.line("/help")
        t.expect("Tab completes")
        t.line("/exit")
        self.assertEqual(t.wait(), 0)

    def test_ctrl_c_stops_the_answer_and_not_the_program(self):
        t = self.open(tokens=-1)
        t.line("Write a very long story about a mouse and a cat.")
        t.expect("Assistant> ")
        time.sleep(0.3)
        t.type("\x03")
        t.expect("Stopped")
        t.expect("You> ")
        t.type("half a line\x03")
        t.expect("^C")
        t.expect("You> ")
        t.line("/stats")
        t.expect("interrupted")
        t.expect("You> ")
        t.type("\x04")
        self.assertEqual(t.wait(), 0)

    def test_ctrl_c_twice_at_the_prompt_leaves(self):
        t = self.open()
        t.type("\x03")
        t.expect("leaves")
        t.expect("You> ")
        t.type("\x03")
        self.assertEqual(t.wait(), 0)

    def test_ctrl_c_after_typing_clears_and_does_not_count(self):
        t = self.open()
        for typed in ("", "half a line", "\x12search", "another half"):
            t.type(typed)
            time.sleep(0.2)
            t.type("\x03")
            t.expect("leaves")
            t.expect("You> ")
        t.type("\x03")
        self.assertEqual(t.wait(), 0)

    def test_pasted_lines_do_not_send_themselves(self):
        t = self.open()
        t.type("\x1b[200~first\rsecond\x1b[31m\r\x1b[201~")
        time.sleep(0.3)
        t.read(0.2)
        self.assertNotIn("Assistant>", t.seen)
        t.type("\r")
        t.expect("Assistant> ")
        t.expect("You> ")
        path = self.home / "p.json"
        t.line(f"/save {path}")
        t.expect("messages are in")
        t.expect("You> ")
        t.type("\x04")
        self.assertEqual(t.wait(), 0)
        self.assertEqual(json.loads(path.read_text())["messages"][0]["content"], "first\nsecond[31m")

    def test_the_arrow_brings_back_the_last_message_also_of_another_run(self):
        t = self.open()
        t.line("Remember this")
        t.expect("Assistant> ")
        t.expect("You> ")
        t.type("\x04")
        t.wait()
        t = self.open()
        t.type("\x1b[A")
        t.expect("Remember this")
        t.type("\x03")
        t.kill()

    def test_a_killed_conversation_is_resumed(self):
        t = self.open()
        t.line("My name is Ada.")
        t.expect("Assistant> ")
        t.expect("You> ")
        t.kill()
        with open(self.journals()[0], "ab") as f:
            f.write(b"torn")
        t = self.open("--resume")
        t.line("/show prompt")
        self.assertIn("My name is Ada.", t.expect("tokens]"))
        t.kill()

    def test_forty_columns(self):
        t = self.open(columns=40)
        t.line("Tell me about rivers, please, in many words.")
        t.expect("Assistant> ")
        before = t.expect("You> ")
        stats = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", before).splitlines() if "context" in line]
        self.assertEqual(len(stats), 1)
        self.assertLessEqual(len(stats[0].strip()), 40)
        t.line("/help")
        t.expect("Tab completes")
        t.expect("You> ")
        t.type("\x04")
        self.assertEqual(t.wait(), 0)

    def test_no_color_is_obeyed(self):
        t = self.open(NO_COLOR="1")
        t.line("Hi")
        t.expect("Assistant> ")
        self.assertNotRegex(t.expect("You> "), r"\x1b\[[0-9;]*m")
        t.type("\x04")
        t.wait()


class Kills(Home):
    def test_a_hundred_kills_lose_no_turn_that_was_answered(self):
        """The answers are one token long, so that most of the time is spent writing."""
        journal = self.home / "all.journal"
        command = [PLUMB, "chat", "-m", MODEL, "-c", "256", "-n", "1", "--temp", "0", "--history-file", str(journal)]
        environment = self.environment()
        answered, kills = 0, 0
        while kills < 100:
            p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                 env=environment)
            # The line after an answer is asked for only when the turn is on the disk.
            for i in range(2 + kills % 3):
                p.stdin.write(b"/clear\nHi\n")
                p.stdin.flush()
                p.stdout.readline()
                answered += i > 0  # the answer before this one
            time.sleep(kills % 7 / 2000)
            p.kill()
            p.wait()
            p.stdin.close()
            p.stdout.close()
            kills += 1
        data = journal.read_bytes()
        self.assertTrue(data.startswith(b"plumbjrn"))
        at, turns = 8, 0
        while at + 8 <= len(data):
            length = struct.unpack_from("<I", data, at)[0]
            if at + 8 + length > len(data):
                break
            record = json.loads(data[at + 8:at + 8 + length])
            turns += record["type"] == "turn"
            at += 8 + length
        self.assertGreaterEqual(turns, answered)
        # The last kill may have come behind a /clear, where there is nothing to go on with; a turn later there is.
        subprocess.run(command, input=b"Hello again\n", capture_output=True, env=environment, timeout=60, check=True)
        r = subprocess.run([*command, "--resume"], input=b"/show prompt\n", capture_output=True, env=environment, timeout=60)
        self.assertEqual(r.returncode, 0, r.stderr)


if __name__ == "__main__":
    unittest.main()
