"""Tools through `plumb serve`, in the words of OpenAI's and of Anthropic's clients, for each family of templates that calls them."""

import json
import os
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "tools")]

import anthropic  # noqa: E402
import fetch  # noqa: E402
import jsonschema  # noqa: E402
import openai  # noqa: E402
from serving import Server  # noqa: E402

TEMPLATES = Path(fetch.fetch("templates"))
FAMILIES = {"SmolLM2": None, "Qwen2.5": "Qwen-Qwen2.5-7B-Instruct", "Qwen3": "Qwen-Qwen3-0.6B", "Llama 3.1": "meta-llama-Llama-3.1-8B-Instruct",
            "Llama 3.2": "meta-llama-Llama-3.2-3B-Instruct", "Llama 3.3": "meta-llama-Llama-3.3-70B-Instruct",
            "Mistral": "mistralai-Mistral-Nemo-Instruct-2407", "Hermes 2": "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
            "Hermes 3": "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"}
SEEDS = int(os.environ.get("PLUMB_SEEDS", 1))
SCHEMAS = {
    "weather": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
                "required": ["city", "days"], "additionalProperties": False},
    "add": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["a", "b"], "additionalProperties": False},
}
TOOLS = [{"type": "function", "function": {"name": name, "description": f"Does {name}", "parameters": schema, "strict": True}}
         for name, schema in SCHEMAS.items()]
ANTHROPIC_TOOLS = [{"name": name, "description": f"Does {name}", "input_schema": schema} for name, schema in SCHEMAS.items()]


class Tools(unittest.TestCase):
    def serve(self, template):
        arguments = ["--chat-template-file", str(TEMPLATES / f"{template}.jinja")] if template else []
        server = Server("-np", "4", *arguments)
        self.addCleanup(server.stop)
        return server

    def check(self, calls, names):
        self.assertTrue(calls)
        for call in calls:
            self.assertIn(call.function.name, names)
            jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
        self.assertEqual(len({c.id for c in calls}), len(calls))

    def ask(self, client, **more):
        return client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "What is 2 + 3? And the weather in Rome?"}],
                                              tools=TOOLS, temperature=0.7, **{"max_tokens": 100, **more})

    def test_every_family_calls_what_it_must(self):
        for family, template in FAMILIES.items():
            with self.subTest(family):
                client = self.serve(template).openai()
                for seed in range(SEEDS):
                    found = self.ask(client, tool_choice="required", parallel_tool_calls=False, seed=seed).choices[0]
                    self.check(found.message.tool_calls, SCHEMAS)
                    self.assertEqual((found.finish_reason, len(found.message.tool_calls)), ("tool_calls", 1))
                    named = self.ask(client, tool_choice={"type": "function", "function": {"name": "add"}}, parallel_tool_calls=False, seed=seed)
                    self.check(named.choices[0].message.tool_calls, {"add"})
                none = self.ask(client, tool_choice="none", seed=1, max_tokens=8).choices[0]
                self.assertIsNone(none.message.tool_calls)
                self.ask(client, seed=1, max_tokens=8)  # auto: whatever it writes
                first = self.ask(client, tool_choice="required", parallel_tool_calls=False, seed=0).choices[0].message
                chunks = list(self.ask(client, tool_choice="required", parallel_tool_calls=False, seed=0, stream=True))
                streamed = [c for k in chunks for c in k.choices[0].delta.tool_calls or []]
                self.assertEqual("".join(c.function.arguments for c in streamed), first.tool_calls[0].function.arguments)
                self.assertEqual(chunks[-1].choices[0].finish_reason, "tool_calls")

    def test_a_result_comes_back_into_the_prompt_of_every_family(self):
        for family, template in FAMILIES.items():
            with self.subTest(family):
                server = self.serve(template)
                call = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
                messages = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                            {"role": "tool", "tool_call_id": "abcdefghi", "content": "the sum is 5"}]
                status, _, found = server.ask("POST", "/apply-template", {"messages": messages, "tools": TOOLS})
                self.assertEqual(status, 200, found)
                self.assertIn("the sum is 5", found["prompt"])
                self.assertIn("add", found["prompt"])

    def test_what_is_wrong_with_tools_is_named(self):
        client = self.serve(None).openai()
        for more, place in (({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"), ({"tool_choice": "sometimes"}, "tool_choice"),
                            ({"extra_body": {"response_format": {"type": "json_object"}}}, "tools")):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.ask(client, **more)
            self.assertIn(place, str(caught.exception))


class Anthropic(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("-np", "4", "--chat-template-file", str(TEMPLATES / "Qwen-Qwen3-0.6B.jinja"))
        cls.client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{cls.server.port}", api_key="none", max_retries=0)
        cls.asked = dict(model="smol", max_tokens=200, messages=[{"role": "user", "content": "What is 2 + 3?"}], tools=ANTHROPIC_TOOLS,
                         extra_body={"seed": 2, "temperature": 0.7})

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_a_call_that_must_be_made_is_a_block_and_streams_as_one(self):
        asked = {**self.asked, "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True}}
        whole = self.client.messages.create(**asked)
        calls = [b for b in whole.content if b.type == "tool_use"]
        self.assertEqual((whole.stop_reason, len(calls), calls[0].name), ("tool_use", 1, "add"))
        jsonschema.validate(calls[0].input, SCHEMAS["add"])
        with self.client.messages.stream(**asked) as stream:
            events = [e.type for e in stream]
            final = stream.get_final_message()
        self.assertEqual([(b.type, getattr(b, "input", None)) for b in final.content], [(b.type, getattr(b, "input", None)) for b in whole.content])
        self.assertIn("content_block_delta", events)
        self.assertEqual(events.count("content_block_start"), events.count("content_block_stop"))

    def test_any_call_none_and_results(self):
        some = self.client.messages.create(**{**self.asked, "tool_choice": {"type": "any"}})
        call = next(b for b in some.content if b.type == "tool_use")
        none = self.client.messages.create(**{**self.asked, "tool_choice": {"type": "none"}, "max_tokens": 8})
        self.assertFalse([b for b in none.content if b.type == "tool_use"])
        messages = [*self.asked["messages"], {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, call.model_dump(
            include={"type", "id", "name", "input"})]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "it is 5"}]},
                                                 {"type": "text", "text": "Thanks."}]}]
        after = self.client.messages.create(**{**self.asked, "messages": messages, "max_tokens": 8})
        before = self.client.messages.count_tokens(model="smol", messages=self.asked["messages"], tools=ANTHROPIC_TOOLS).input_tokens
        self.assertGreater(after.usage.input_tokens + after.usage.cache_read_input_tokens, before + 10)

    def test_thoughts_are_blocks_of_their_own(self):
        """SmolLM2 does not think by itself: a template begins the thought for it."""
        server = Server("--chat-template", "{% for m in messages %}{{ m.content }}{% endfor %}<think>{# </think> #}")
        self.addCleanup(server.stop)
        client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0)
        found = client.messages.create(model="smol", max_tokens=12, messages=[{"role": "user", "content": "Hi"}], thinking={"type": "adaptive"})
        self.assertEqual([b.type for b in found.content], ["thinking"])
        with self.assertRaises(anthropic.BadRequestError) as caught:  # the end of a thought is no token of SmolLM2's
            client.messages.create(model="smol", max_tokens=12, messages=[{"role": "user", "content": "Hi"}], thinking={"type": "enabled", "budget_tokens": 4})
        self.assertIn("budget_tokens", str(caught.exception))

    def test_what_is_wrong_is_named_in_its_own_words(self):
        bad = {"/tools/0/input_schema": {"tools": [{"name": "x"}]}, "/messages/0/content/0/type": {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
               "/tool_choice/type": {"tool_choice": {"type": "maybe"}}, "/thinking/type": {"thinking": {"type": "x"}},
               "/messages/0/role": {"messages": [{"role": "system", "content": "x"}]}}
        for pointer, more in bad.items():
            status, _, found = self.server.ask("POST", "/v1/messages", {"max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}], **more})
            self.assertEqual((status, found["type"], found["error"]["type"]), (400, "error", "invalid_request_error"), pointer)
            self.assertIn(pointer, found["error"]["message"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
