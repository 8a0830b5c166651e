"""What is written under a JSON schema validates against it, whatever the model would like to write.

1,000 generated schemas, each sampled with random choices among the allowed tokens; python's jsonschema is the judge. Each
schema with an unsupported keyword somewhere must be refused with that keyword's JSON pointer. Then bombs, which must be
refused or compiled in a second, and the grammars of llama.cpp's source package where it is at hand.

Usage: schema_test.py TOOL, where TOOL is plumb_grammar_tool. PLUMB_GRAMMARS names a folder of further .gbnf files.
"""

import json
import os
import pathlib
import random
import re
import subprocess
import sys
import time

import jsonschema

UNSUPPORTED = {
    "not": {}, "if": {}, "contains": {}, "uniqueItems": True, "patternProperties": {"^a": True}, "minProperties": 1,
    "dependentRequired": {}, "propertyNames": {}, "unevaluatedProperties": False, "$dynamicRef": "#", "maxProperties": 3,
    "minContains": 1, "nullable": True, "misspelt": 1,
}
FORMATS = ["date", "time", "date-time", "uuid", "ipv4", "email", "hostname", "uri"]
PATTERNS = ["^[a-z]{2,5}$", "^(ab|cd)+$", "^\\d{3}-\\d{4}$", "a.c", "^[^x\"]{1,4}$", "^\\w+\\s?\\w*$", "[\\\\/]", "^$", "x|^y"]
KEYS = ["a", "b", "name", "na", "x\"y", "\u00fc", "", "two words", "a/b"]


def scalar(r):
    kind = r.choice(["string", "integer", "number", "boolean", "null", "enum", "const"])
    if kind == "enum":
        return {"enum": r.sample(["red", "gr\"een", 1, 2.5, None, True, [1], {"k": "v"}], r.randint(1, 4))}
    if kind == "const":
        return {"const": r.choice(["x", "\u00e9\n", 7, -1.5, False, None, [], {}])}
    schema = {"type": kind}
    if kind == "string":
        choice = r.randint(0, 4)
        if choice == 1:
            schema["minLength"] = r.randint(0, 5)
            if r.random() < 0.7:
                schema["maxLength"] = schema["minLength"] + r.randint(0, 20)
        elif choice == 2:
            schema["format"] = r.choice(FORMATS)
        elif choice == 3:
            schema["pattern"] = r.choice(PATTERNS)
    elif kind in ("integer", "number") and r.random() < 0.7:
        low = r.choice([-1000, -57, -1, 0, 1, 3, 99, 12345, 10**10])
        width = r.choice([0, 1, 9, 100, 98765])
        step = r.choice([0, 0.5]) if kind == "number" and width > 1 else 0
        schema[r.choice(["minimum", "exclusiveMinimum"]) if width > 1 else "minimum"] = low + step
        if r.random() < 0.7:
            schema[r.choice(["maximum", "exclusiveMaximum"]) if width > 1 else "maximum"] = low + width
    return schema


def array(r, depth):
    schema = {"type": "array"}
    if r.random() < 0.3:
        schema["prefixItems"] = [value(r, depth - 1) for _ in range(r.randint(1, 3))]
        if r.random() < 0.5:
            schema["items"] = r.choice([False, value(r, 0)])
    elif r.random() < 0.9:
        schema["items"] = value(r, depth - 1)
    room = len(schema["prefixItems"]) if schema.get("items") is False else 5
    if r.random() < 0.5:
        schema["minItems"] = r.randint(0, min(room, 3))
    if r.random() < 0.5:
        schema["maxItems"] = schema.get("minItems", 0) + r.randint(0, 3)
    return schema


def object_(r, depth):
    keys = r.sample(KEYS, r.randint(0, 4))
    schema = {"type": "object", "properties": {k: value(r, depth - 1) for k in keys}}
    schema["required"] = [k for k in keys if r.random() < 0.5]
    if r.random() < 0.7:
        schema["additionalProperties"] = r.choice([False, False, True, scalar(r)])
    return schema


def value(r, depth):
    if depth <= 0:
        return scalar(r)
    kind = r.choice(["scalar", "array", "object", "object", "anyOf", "oneOf", "allOf", "types", "ref"])
    if kind == "array":
        return array(r, depth)
    if kind == "object":
        return object_(r, depth)
    if kind == "anyOf":
        return {"anyOf": [value(r, depth - 1) for _ in range(r.randint(1, 3))], "description": "any"}
    if kind == "oneOf":
        return {"oneOf": [{"type": "object", "properties": {"kind": {"const": str(i)}, "v": value(r, depth - 1)},
                           "required": ["kind"], "additionalProperties": False} for i in range(r.randint(1, 3))]}
    if kind == "allOf":
        return {"allOf": [{"type": "object", "properties": {"p": value(r, 0), "q": {"type": "integer"}}, "required": ["p"]},
                          {"properties": {"q": {"minimum": 3}, "s": value(r, 0)}, "required": ["s"]}]}
    if kind == "types":
        return {"type": r.sample(["string", "integer", "null", "boolean"], 2), "title": "t"}
    if kind == "ref":
        return {"$ref": "#/$defs/tree" if r.random() < 0.5 else "#/$defs/leaf"}
    return scalar(r)


def make_schema(r):
    schema = value(r, r.randint(0, 3))
    schema["$defs"] = {
        "leaf": scalar(r),
        "tree": {"type": "object", "properties": {"v": {"$ref": "#/$defs/leaf"}, "left": {"$ref": "#/$defs/tree"},
                                                  "right": {"$ref": "#/$defs/tree"}},
                 "required": ["v"], "additionalProperties": False}}
    return schema


def spoil(r, schema):
    """The schema with an unsupported keyword somewhere, and the keyword's pointer."""
    schema, pointer = json.loads(json.dumps(schema)), "#"
    at = schema
    while r.random() < 0.7:
        ways = [("properties", k) for k in at.get("properties", {})] + [(u, i) for u in ("anyOf", "oneOf", "allOf", "prefixItems")
                                                                       for i in range(len(at.get(u, [])))]
        if not ways:
            break
        key, part = r.choice(ways)
        if not isinstance(at[key][part], dict):
            break
        at = at[key][part]
        pointer += f"/{key}/{str(part).replace('~', '~0').replace('/', '~1')}"
    keyword = r.choice(sorted(UNSUPPORTED))
    at[keyword] = UNSUPPORTED[keyword]
    return schema, f"{pointer}/{keyword}"


def find(validator, pattern, instance, schema):
    if validator.is_type(instance, "string") and not re.search(pattern, instance, re.ASCII):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": find})
BOMBS = [
    {"grammar": "root ::= " + "(" * 60000 + '"a"' + ")" * 60000},
    {"grammar": "root ::= " + "(" * 100 + '"a"' + "{1000})" * 100},
    {"grammar": 'root ::= "a"{1000000000}'},
    {"grammar": "root ::= [^a]" + "{2000}" * 8},
    {"grammar": 'root ::= a\na ::= b\nb ::= a "x" | "y"'},
    {"grammar": "\n".join(f"a{i} ::= a{i + 1} a{i + 1}" for i in range(2000)) + '\na2000 ::= "x"\nroot ::= a0'},
    {"grammar": "\n".join(f'a{i} ::= a{i + 1} a{i + 1} | ""' for i in range(60)) + '\na60 ::= "x"\nroot ::= a0'},
    {"grammar": 'root ::= (("a"?){100} "b"?){100}'},
    {"schema": {"type": "string", "pattern": "(" * 10000 + "a" + ")" * 10000}},
    {"schema": {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"}},
    {"schema": {"type": "string", "pattern": "^(a+)+(a|aa)*(.*)*$"}},
    {"schema": {"type": "string", "maxLength": 10**9}},
    {"schema": {"type": "array", "minItems": 10**9}},
    {"schema": {"$ref": "#"}},
    {"schema": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
    {"schema": {"allOf": [{"$ref": "#"}, {"type": "object"}]}},
    {"schema": {"properties": {"c": {"$ref": "#"}}, "required": ["c"], "type": "object"}},
    {"schema": {"anyOf": [{"$ref": "#"}, {"type": "string"}]}},
    {"schema": {"allOf": [{"anyOf": [{"minimum": i * 10 + j} for j in range(10)]} for i in range(10)]}},
    {"schema": {"$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {"type": "null"}},
                "$ref": "#/$defs/d0"}},
    {"schema": {"enum": ["x" * 300000]}},
    {"schema": {"type": "object", "properties": {"k" * 5000: {}}, "additionalProperties": True}},
]


def ask(tool, tasks):
    lines = "".join(json.dumps(t) + "\n" for t in tasks)
    out = subprocess.run([tool], input=lines, capture_output=True, text=True, timeout=600)
    assert out.returncode == 0, out.stderr[-2000:]
    return [json.loads(line) for line in out.stdout.splitlines()]


def main():
    tool, r, wrong = sys.argv[1], random.Random(1), []
    schemas = [make_schema(r) for _ in range(int(os.environ.get("PLUMB_SCHEMAS", "1000")))]
    texts = unfinished = refused = 0
    for schema, reply in zip(schemas, ask(tool, [{"schema": s, "samples": 4, "seed": i} for i, s in enumerate(schemas)])):
        if "error" in reply:
            refused += 1
            wrong.append(f"refused: {reply['error']}: {json.dumps(schema)}")
            continue
        unfinished += reply["unfinished"]
        checker = Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
        for text in reply["texts"]:
            texts += 1
            try:
                errors = [e.message for e in checker.iter_errors(json.loads(text))]
            except ValueError as e:
                errors = [str(e)]
            if errors:
                wrong.append(f"{errors[0][:200]}: {text[:300]}: {json.dumps(schema)}")
    if unfinished > texts // 50:
        wrong.append(f"{unfinished} texts did not end")
    spoilt = [spoil(r, s) for s in schemas[:400]]
    for (schema, pointer), reply in zip(spoilt, ask(tool, [{"schema": s, "samples": 0, "seed": 0} for s, _ in spoilt])):
        if reply.get("code") != "schema.unsupported" or json.dumps(pointer)[1:-1].split("\\")[0][:50] not in reply["error"]:
            wrong.append(f"not refused at {pointer}: {reply}: {json.dumps(schema)}")
    for bomb in BOMBS:
        start = time.monotonic()
        reply = ask(tool, [bomb | {"samples": 1, "seed": 0}])[0]
        seconds = time.monotonic() - start
        code = reply.get("code", "compiled")
        print(f"  {code:22} {seconds:6.2f} s  {json.dumps(bomb)[:70]}")
        if seconds > 3 or not (code == "compiled" or code.startswith(("grammar.", "schema."))):
            wrong.append(f"bomb: {code} after {seconds:.1f} s: {json.dumps(bomb)[:200]}")
    folder = os.environ.get("PLUMB_GRAMMARS")
    for path in sorted(pathlib.Path(folder).glob("*.gbnf")) if folder else []:
        reply = ask(tool, [{"grammar": path.read_text(), "samples": 3, "seed": 1}])[0]
        print(f"  {path.name}: {reply.get('error', str(len(reply.get('texts', []))) + ' texts')}")
        if "error" in reply:
            wrong.append(f"{path.name}: {reply['error']}")
    for line in wrong[: int(os.environ.get("PLUMB_SHOW", "10"))]:
        print(line)
    print(f"{len(schemas)} schemas, {refused} refused, {texts} texts, {unfinished} unended; {len(spoilt)} spoilt; "
          f"{len(BOMBS)} bombs; {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
