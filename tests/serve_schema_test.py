"""JSON schemas through `plumb serve`: a real model's answer under each of the schemas of schema_test.py either validates, or the
schema is refused with 400. PLUMB_SCHEMAS says how many (1000 where somebody watches)."""

import concurrent.futures
import json
import os
import random
import sys
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "tools")]

import jsonschema  # noqa: E402
import schema_test  # noqa: E402
from serving import Server  # noqa: E402

COUNT = int(os.environ.get("PLUMB_SCHEMAS", 40))


class Schemas(unittest.TestCase):
    def test_each_answer_validates_and_what_cannot_be_kept_is_400(self):
        server = Server("-np", "8", "--queue", "32")
        self.addCleanup(server.stop)
        r = random.Random(7)
        schemas = [schema_test.make_schema(r) for _ in range(COUNT)]
        asked = [(schema_test.spoil(r, s)[0], True) if i % 10 == 9 else (s, False) for i, s in enumerate(schemas)]

        def answer(item):
            i, (schema, _) = item
            return server.ask("POST", "/v1/chat/completions", {
                "messages": [{"role": "user", "content": f"Write a short example, number {i}, as JSON."}], "temperature": 0.8, "seed": i, "max_tokens": 400,
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(answer, enumerate(asked)))
        valid = hurried = refused = 0
        for (schema, spoilt), (status, _, body) in zip(asked, found):
            if spoilt:
                self.assertEqual((status, body["error"]["plumb"]["code"]), (400, "schema.unsupported"), schema)
                refused += 1
                continue
            self.assertEqual(status, 200, f"{body} {schema}")
            choice = body["choices"][0]
            hurried += choice["finish_reason"] == "length"  # completed in time, and says that there was a limit
            checker = schema_test.Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
            errors = [e.message for e in checker.iter_errors(json.loads(choice["message"]["content"]))]
            self.assertEqual(errors, [], f"{choice} {schema}")
            valid += 1
        print(f"{COUNT} schemas: {valid} answers valid, {refused} refused with 400; {hurried} of the valid were completed early, within 400 tokens", flush=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
