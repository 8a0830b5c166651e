"""The page of `plumb serve` in a real browser: ask, stream, stop, branch, reload; strings of an attacker; nothing from outside."""

import json
import os
import re
import signal
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "tools")]

import browser  # noqa: E402
import fetch  # noqa: E402

PLUMB = os.environ.get("PLUMB") or str(ROOT / "build" / "release" / "plumb")
PICTURES = os.environ.get("PLUMB_PICTURES")  # a folder, to look at the page

PARTS = ["<script>hit()</script>", "<img src=x onerror=hit()>", "<svg onload=hit()>", "[x](javascript:hit())", "[x](data:text/html,<script>hit()</script>)",
         "<a href='javascript:hit()'>x</a>", "![x](https://example.com/x.png)", "<iframe srcdoc='<script>hit()</script>'>", "`<b onclick=hit()>`",
         "```\n</code><script>hit()</script>\n```", "<style>@import 'https://example.com/x.css'</style>", "[x](https://example.com/\" onclick=\"hit())",
         "| <img src=x onerror=hit()> | b |\n|---|---|\n| <svg/onload=hit()> | d |", "> <script>hit()</script>", "- <details open ontoggle=hit()>",
         "# <meta http-equiv=refresh content='0;url=javascript:hit()'>", "</textarea><script>hit()</script>", "&lt;script&gt;hit()&lt;/script&gt;",
         "<math><mi xlink:href='javascript:hit()'>", "**<object data='javascript:hit()'>**"]
ATTACKS = [before + part + after for part in PARTS for before, after in
           [("", ""), ("**", "**"), ("- ", ""), ("> ", "\n\nx"), ("| ", " |\n|---|\n"), ("1. a\n   ", ""), ("\u202e", "\x00"), ("```\n", ""), ("[", "](x)"), ("_", "_")]]


@unittest.skipUnless(browser.PROGRAM, "needs Chromium")
class Web(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = subprocess.Popen([PLUMB, "serve", "-m", str(fetch.fetch("smollm2")), "--port", "0", "-c", "2048"],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in cls.server.stderr:
            if m := re.search(r"http://[\w.\[\]:]+:\d+", line):
                cls.url = m.group(0)
                break
        cls.page = browser.Page(cls.url + "/")
        cls.page.wait("document.readyState === 'complete' && document.getElementById('model')?.textContent")

    @classmethod
    def tearDownClass(cls):
        cls.page.close()
        cls.server.send_signal(signal.SIGTERM)
        cls.server.communicate(timeout=60)

    def setUp(self):
        self.page.size(1280, 900)
        self.page.run("localStorage.clear(); localStorage.setItem('plumb.settings', JSON.stringify({temperature: 0, max_tokens: 24}))")
        self.reload()

    def reload(self):
        self.page.ask("Page.navigate", url="about:blank")
        self.page.ask("Page.navigate", url=self.url + "/")
        self.page.wait("document.getElementById('model')?.textContent")

    def say(self, text, finished=True):
        self.page.run("document.getElementById('text').focus()")
        self.page.type(text)
        self.page.key("Enter")
        if finished:
            self.page.wait("document.getElementById('send').textContent === 'Send' && document.querySelector('article.assistant .tools span') !== null")

    def answer(self):
        return self.page.run("[...document.querySelectorAll('article.assistant .body')].at(-1).textContent")

    def press(self, label):
        self.page.run(f"[...document.querySelectorAll('#talk button, #inspect button')].filter(b => b.textContent === {json.dumps(label)}).at(-1).click()")

    def picture(self, name):
        if PICTURES:
            self.page.picture(Path(PICTURES) / f"{name}.png")

    def test_an_answer_streams_is_kept_and_survives_a_reload(self):
        self.say("What is the capital of France?")
        answer = self.answer()
        self.assertIn("Paris", answer)
        self.picture("talk-1280")
        self.reload()
        self.assertEqual(self.answer(), answer)
        self.say("And of Italy?")
        self.assertEqual(self.page.run("document.querySelectorAll('article').length"), 4)

    def test_certainty_shows_every_token_and_another_one_can_be_taken(self):
        self.say("Name a colour.")
        first = self.answer()
        self.press("Certainty")
        tokens = self.page.run("[...document.querySelectorAll('.tokens button')].map(b => b.textContent).join('')")
        self.assertEqual(tokens.replace("\u23ce", "").split(), first.split())
        self.page.run("document.querySelectorAll('.tokens button')[1].click()")
        self.assertIn("margin", self.page.run("document.getElementById('inspect').textContent"))
        self.picture("certainty-1280")
        self.press("Branch here")
        self.page.wait("document.getElementById('send').textContent === 'Send' && document.body.textContent.includes('2/2')")
        self.assertNotEqual(self.answer(), first)
        self.page.run("document.querySelector('[aria-label=\"Earlier version\"]').click()")
        self.assertEqual(self.answer(), first)

    def test_the_prompt_is_shown_with_its_tokens_and_the_request_that_repeats_it(self):
        self.say("It's a colour: name it.")
        self.press("Prompt")
        self.page.wait("document.getElementById('inspect').textContent.includes('curl')")
        shown = self.page.run("[...document.querySelectorAll('#inspect pre')].map(p => p.textContent)")
        self.assertIn("<|im_start|>user\nIt's a colour: name it.<|im_end|>", shown[0])
        self.picture("prompt-1280")
        command = shown[-1].replace('"stream": true', '"stream": false').replace('"stream_options": {\n  "include_usage": true\n },\n', "")
        found = json.loads(subprocess.run(["bash", "-c", command + " -sS"], capture_output=True, text=True, check=True).stdout)
        self.assertEqual(found["choices"][0]["message"]["content"].split(), self.answer().split())

    def test_escape_stops_an_answer_and_keeps_what_came(self):
        self.page.run("localStorage.setItem('plumb.settings', JSON.stringify({temperature: 0, max_tokens: 1500}))")
        self.reload()
        self.say("Write a very long story about a river.", finished=False)
        self.page.wait("document.querySelector('article.assistant .body')?.textContent.length > 40")
        self.page.key("Escape")
        self.page.wait("document.getElementById('send').textContent === 'Send'")
        self.assertGreater(len(self.answer()), 40)
        self.assertLess(len(self.answer()), 4000)

    def test_an_edited_question_is_a_branch_and_both_stay(self):
        self.say("Say one.")
        self.press("Edit")
        self.page.run("document.querySelector('article textarea').value = 'Say two.'; document.querySelector('article .tools button').click()")
        self.page.wait("document.getElementById('send').textContent === 'Send' && document.body.textContent.includes('2/2')")
        self.assertIn("Say two.", self.page.run("document.querySelector('article.user .body').textContent"))
        self.page.run("document.querySelector('[aria-label=\"Earlier version\"]').click()")
        self.assertIn("Say one.", self.page.run("document.querySelector('article.user .body').textContent"))

    def test_200_strings_of_an_attacker_are_text(self):
        nodes = {"root": {"role": "root", "content": "", "parent": None, "children": ["0"], "active": 0}}
        for i, attack in enumerate(ATTACKS):
            last = i + 1 == len(ATTACKS)
            nodes[str(i)] = {"role": "assistant" if i % 2 else "user", "content": attack, "thought": attack, "parent": str(i - 1) if i else "root",
                             "children": [] if last else [str(i + 1)], "active": -1 if last else 0,
                             "tokens": [{"text": attack, "logprob": -0.1, "margin": 1, "top": [[attack, -0.1]]}]}
        self.assertEqual(len(ATTACKS), 200)
        self.page.run("localStorage.setItem('plumb.conversations', " + json.dumps(json.dumps([{"id": "x", "title": PARTS[1], "created": 0, "nodes": nodes}])) + ")")
        self.page.events.clear()
        self.page.ask("Page.addScriptToEvaluateOnNewDocument", source="window.hits = 0; window.hit = () => ++window.hits")
        self.reload()
        self.page.wait("document.querySelectorAll('article').length === 200")
        self.press("Certainty")
        self.page.run("document.querySelectorAll('.body a, .body b, .body details').forEach(e => e.dispatchEvent(new Event('click')))")
        self.assertEqual(self.page.run("window.hits"), 0)
        self.assertEqual(self.page.run("document.querySelectorAll('#talk script, #talk img, #talk svg, #talk iframe, #talk style, #talk object').length"), 0)
        self.assertEqual(self.page.run("[...document.querySelectorAll('a')].filter(a => !/^https?:/.test(a.href)).length"), 0)

    def test_nothing_comes_from_elsewhere_and_the_policy_is_strict(self):
        self.say("Hello")
        asked = [e["params"]["request"]["url"] for e in self.page.events if e["method"] == "Network.requestWillBeSent"]
        self.assertTrue(asked)
        self.assertEqual([u for u in asked if not u.startswith((self.url, "data:", "about:"))], [])
        policies = [e["params"]["response"]["headers"] for e in self.page.events if e["method"] == "Network.responseReceived"
                    and e["params"]["response"]["url"] == self.url + "/"]
        policy = {k.lower(): v for k, v in policies[-1].items()}["content-security-policy"]
        self.assertIn("default-src 'self'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual([e for e in self.page.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")], [])

    def test_a_telephone_has_room_for_all_of_it(self):
        self.page.size(390, 800)
        self.say("What is the capital of France?")
        self.assertLessEqual(self.page.run("document.documentElement.scrollWidth"), 390)
        self.assertEqual(self.page.run("getComputedStyle(document.getElementById('side')).display"), "none")
        self.picture("talk-390")
        self.page.run("document.getElementById('theme').click(); document.getElementById('theme').click()")
        self.picture("dark-390")
        self.page.run("document.getElementById('menu').click()")
        self.assertEqual(self.page.run("getComputedStyle(document.getElementById('side')).display"), "flex")


if __name__ == "__main__":
    unittest.main(verbosity=2)
