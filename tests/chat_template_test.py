"""Rendered chat templates equal those of Python's jinja2, set up as Hugging Face's transformers sets it up.

Every template of llama.cpp's source package (scripts/fetch.py templates) and of SmolLM2's file meets every conversation
below, with and without a generation prompt. Small sources for single rules of the language follow. Texts must be equal to
the byte; where jinja2 fails, Plumb must fail, and a template's own raise_exception must keep its message.

Usage: chat_template_test.py TOOL, where TOOL is plumb_render_tool. PLUMB_SHOW=n prints the first n differences in full.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys

import gguf
import jinja2
import jinja2.ext
import jinja2.sandbox

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / "scripts")]

import fetch  # noqa: E402

NOW = 1_760_000_000


class Generation(jinja2.ext.Extension):
    """{% generation %}, which marks the assistant's words for training."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        members = dict(*args, **kwargs)
        for name in members:
            Namespace.check(name)
        jinja2.utils.Namespace.__init__(self, members)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)


class Raised(jinja2.exceptions.TemplateError):
    pass


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise Raised(message)

    env.filters["tojson"] = tojson
    env.globals.update(raise_exception=raise_exception, namespace=Namespace,
                       strftime_now=lambda form: datetime.datetime.fromtimestamp(NOW).strftime(form))
    return env


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def calling(*calls, content=None, as_text=False):
    return said("assistant", content, tool_calls=[
        {"id": f"call{i:05d}", "type": "function",
         "function": {"name": name, "arguments": json.dumps(given) if as_text else given}} for i, (name, given) in enumerate(calls)])


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather at a place: <b>\"now\"</b> & later\nin words.",
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "City, e.g. Z\u00fcrich"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": ["integer", "null"], "minimum": 1}, "exact": {"type": "boolean"},
        "more": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number", "default": 1.5}}}}}}}}
TIME = {"type": "function", "function": {"name": "time", "description": "The time.",
                                         "parameters": {"type": "object", "properties": {}}}}
TURNS = [said("user", "Hello"), said("assistant", "Hi! 1 < 2 & 'quoted'"), said("user", "  And \"now\"?\n")]
SYSTEM = said("system", "You are terse.\nVery.")
ASKED = [said("user", "Weather in Z\u00fcrich?"), calling(("get_weather", {"place": "Z\u00fcrich", "days": 2, "exact": True, "x": None, "more": [1.0, {"y": "a\"b"}]}))]
REPLIED = [*ASKED, said("tool", "{\"t\": 21}", tool_call_id="call00000", name="get_weather")]
TWO = [SYSTEM, said("user", "Both?"), calling(("get_weather", {"place": "Bern"}), ("time", {}), content="Let me see."),
       said("tool", "rain", tool_call_id="call00000", name="get_weather"), said("tool", "noon", tool_call_id="call00001", name="time"),
       said("assistant", "Rain at noon."), said("user", "Thanks")]
TEXT_CALL = [said("user", "Weather?"), calling(("get_weather", {"place": "Rom"}), as_text=True),
             said("tool", "sun", tool_call_id="call00000", name="get_weather")]
THOUGHT = [said("user", "2+2?"), said("assistant", "<think>\nadd\n</think>\n\n4", reasoning_content="add"), said("user", "3+3?"),
           said("assistant", "6", reasoning_content="again", thinking="again")]
PARTS = [said("system", [{"type": "text", "text": "Be kind."}]),
         said("user", [{"type": "text", "text": "One "}, {"type": "text", "text": "two"}])]
DOCUMENTS = [{"title": "T1", "text": "Body one", "doc_id": 1}, {"title": "T2", "text": "Body two", "doc_id": 2}]

CONVERSATIONS = {
    "one question": dict(messages=[said("user", "Hi")]),
    "several turns": dict(messages=TURNS),
    "system and turns": dict(messages=[SYSTEM, *TURNS]),
    "trailing assistant": dict(messages=[SYSTEM, said("user", "Count."), said("assistant", "1, 2,")]),
    "unicode": dict(messages=[said("user", "Gr\u00fc\u00dfe \u4e16\u754c \U0001f600 e\u0301\u00a0\u2028end\t")]),
    "tools offered": dict(messages=[SYSTEM, said("user", "Weather?")], tools=[WEATHER, TIME]),
    "tools without system": dict(messages=[said("user", "Weather?")], tools=[WEATHER]),
    "tool called": dict(messages=ASKED, tools=[WEATHER]),
    "tool replied": dict(messages=REPLIED, tools=[WEATHER, TIME]),
    "two calls": dict(messages=TWO, tools=[WEATHER, TIME]),
    "calls without tools": dict(messages=TWO),
    "arguments as text": dict(messages=TEXT_CALL, tools=[WEATHER]),
    "thinking on": dict(messages=THOUGHT[:3], variables={"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}),
    "thinking off": dict(messages=THOUGHT[:3], variables={"enable_thinking": False, "thinking": False}),
    "reasoning kept": dict(messages=THOUGHT),
    "parts": dict(messages=PARTS),
    "documents": dict(messages=TURNS, variables={"documents": DOCUMENTS}),
    "no messages": dict(messages=[]),
    "empty content": dict(messages=[said("user", ""), said("assistant", ""), said("user", " ")]),
    "null content": dict(messages=[said("user", "x"), said("assistant", None), said("user", None)]),
    "two users": dict(messages=[said("user", "a"), said("user", "b")]),
    "unknown role": dict(messages=[said("user", "a"), said("wizard", "b")]),
    "developer": dict(messages=[said("developer", "Be brief."), said("user", "a")]),
    "no content": dict(messages=[{"role": "user"}]),
    "no role": dict(messages=[{"content": "x"}]),
    "late system": dict(messages=[said("user", "a"), said("assistant", "b"), SYSTEM, said("user", "c")]),
    "strange tool": dict(messages=[said("user", "a")], tools=[{"name": "f"}]),
    "image": dict(messages=[said("user", [{"type": "image"}, {"type": "text", "text": "what?"}])]),
}

# One rule of the language each.
SOURCES = r"""
{{ 1 }}{{ 1.0 }}{{ 1e20 }}{{ 1e-7 }}{{ 0.1 + 0.2 }}{{ 7 // 2 }}{{ -7 // 2 }}{{ -7 % 3 }}{{ 7 / 2 }}{{ 2 ** 10 }}{{ true }}{{ none }}
{{ [1, 'a', "it's", none, 1.5, true, (1,), {'a': [1]}] }}{{ 'q"\'' is string }}{{ ['q"\'', 'a\nb\\', '\x07\u00e9'] }}
{% for x in [1,2,3] %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in [] %}a{% else %}b{% endfor %}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}
{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}
{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}
{% macro m(a, b=2, *c) %}{{ a }}{% endmacro %}{{ m(1) }}
{% macro m(a, b=a ~ 'x') %}[{{ a }}|{{ b }}|{{ varargs }}|{{ kwargs }}]{% endmacro %}{{ m(1) }}{{ m(1, 2, 3, z=4) }}{{ m() }}
{% macro m() %}<{{ caller('x') }}>{% endmacro %}{% call(y) m() %}in {{ y }}{% endcall %}
{{ m(1) }}{% macro m(a) %}{{ a }}{% endmacro %}
{{ undefined_thing }}|{{ undefined_thing.x is defined }}
{{ messages[9] is defined }}{{ messages.x is defined }}{{ nothing is defined and nothing.x }}{{ nothing | default('d') }}{{ '' | default('d', true) }}
{{ 'abc'[1:] }}{{ 'abc'[::-1] }}{{ [1,2,3][-1] }}{{ [1,2,3][:-1] }}{{ 'h\u00e9llo'[1] }}{{ 'h\u00e9llo'|length }}{{ [1,2,3,4][1::2] }}
{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a-b-c'.split('-', 1) }}{{ 'a-b-c'.rsplit('-', 1) }}{{ 'xxaxx'.strip('x') }}
{{ '%s is %d and %.2f' % ('a', 3, 1.5) }}{{ '%s' | format('z') }}{{ '{} {}'.format(1, 'b') }}{{ '{0}{0}{x}'.format(1, x=2) }}
{{ [3,1,2]|sort }}{{ ['b','A','c']|sort|join(',') }}{{ {'b':1,'a':2}|dictsort }}{{ [1,2,2]|unique|list }}{{ [1,2]|map('string')|list }}
{{ [{'a':1},{'a':2,'b':3}]|selectattr('b','defined')|list }}{{ [{'a':1}]|map(attribute='a')|join }}{{ [1,2,3]|reject('odd')|list }}
{{ {'a': 'x"<>&\u00e9\n', 'b': [1, 1.0, none, true]} | tojson }}{{ {'b':1,'a':[]}|tojson(indent=2, sort_keys=true) }}{{ [[],{},[1]]|tojson(indent=1) }}{{ '\u00e9'|tojson(ensure_ascii=true) }}
{{ 'a' ~ 1 ~ none ~ [1] }}{{ 'ab' * 2 }}{{ [1] * 2 }}{{ [1] + [2] }}{{ 'a' + 1 }}
{{ 1 if false }}|{{ 1 if true else 2 }}{{ not 1 == 2 }}{{ 1 < 2 < 3 }}{{ 'a' in 'abc' }}{{ 'x' not in ['x'] }}{{ 1 in {1: 2} }}
{{ 'a' is string and 1 is number }}{{ none is none }}{{ {} is mapping }}{{ [] is sequence }}{{ 'a' is iterable }}{{ nothing is iterable }}{{ 3 is divisibleby 3 }}{{ true is number }}{{ 1 is integer }}{{ 1 is eq 1 }}{{ 2 is gt 1 }}
{{ '<a>' | safe + '<b>' }}{{ '<a>' + ('<b>' | safe) }}{{ ('<b>' | safe) ~ '<c>' }}{{ '<a>'|e }}
{{ "a\nb\n\nc" | indent(2) }}|{{ "a\nb" | indent(2, true) }}|{{ '  x ' | trim }}|{{ 'hello world'|title }}{{ 'hello'|capitalize }}{{ 'x'|upper }}{{ 'aXb'|replace('X','-') }}
{{ '3'|int + 1 }}{{ 'z'|int }}{{ '2.7'|int }}{{ '2.5'|float }}{{ 2.567|round(2) }}{{ -3|abs }}{{ [1,2]|sum }}{{ [1,2]|max }}{{ []|first }}{{ [1,2]|last }}
{%- for x in range(5) -%}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %} {{ x }} {%- endfor +%} z
{% for x in [1,2,3] if x != 2 %}{{ x }}{{ loop.length }}{% endfor %}{% for x in [[1,[2]],[3]] recursive %}{{ loop.depth }}{% endfor %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c %}<{{ a }}>{% endset %}{{ c }}{% set d | upper %}x{% endset %}{{ d }}{% filter upper %}abc{% endfilter %}
{% with q = 1 %}{{ q }}{% endwith %}{{ q is defined }}{% raw %}{{ x }}{% endraw %}{# gone #}{% generation %}g{% endgeneration %}
{{ messages.append(1) }}
{% set x = {}.pop('a') %}
{{ ''.__class__.__mro__ }}
{{ {'items': 1}.items is callable }}{{ {'items': 1}['items'] }}
{{ {'keys': 1, 'b': 2}['keys'] }}{{ {'a': 1}.get('b') }}{{ {'a': 1}.get('b', 5) }}{{ {'a': 1}.keys()|list }}{{ {'a': 1}.items() }}{{ {'a': 1}.values() }}{{ {'a':1}|items|list }}
{{ raise_exception('no: ' ~ 1) }}
{{ strftime_now('%Y-%m-%d %d %b %Y') }}
{{ x | nofilter }}
{% if false %}{{ x | nofilter }}{% endif %}fine
{% if true %}{{ 1 | nofilter }}{% endif %}
{% if x %}
{{ 'unclosed
{% for x in %}{% endfor %}
{{ 1 / 0 }}
{{ none.x }}{{ none.x.y }}
{{ none + 1 }}
{{ [1,2] | length }}{{ 5 | length }}
{% for x in 5 %}{% endfor %}
{{ range(3) }}{{ range(1, 10, 3) | list }}{{ range(3)|reverse|list }}{{ 'abc'|reverse }}{{ 'abc'|list }}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% set x = 5 %}{% set x.y = 5 %}
{{ (1, 2) }}{{ (1,) }}{{ () }}{{ dict(a=1) }}{{ 1, 2 }}{{ 'a' 'b' }}{{ "\u4e16\t\\" }}
{{ [1, 2] == [1, 2] }}{{ {'a': 1} == {'a': 1.0} }}{{ (1,) == [1] }}{{ 'a' < 'b' }}{{ [1] < [2] }}{{ 1 < 'a' }}
{{ 'A b'.lower().replace(' ', '_').title() }}{{ 'a'.startswith(('b', 'a')) }}{{ 'abc'.find('c') }}{{ '12'.isdigit() }}{{ 'a\nb'.splitlines() }}{{ ','.join(['a', 'b']) }}{{ '7'.zfill(3) }}
{{ loop }}
{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}
{% for x in [1] %}{% macro q() %}{{ x }}{% endmacro %}{{ q() }}{% endfor %}{{ q is defined }}
{{ "a" if nothing else "b" }}{{ nothing == none }}{{ nothing + 1 }}
{{ 1 is string or 2 is number }}{{ 'x' is in ['x'] }}{{ not nothing }}{{ -1 | abs }}{{ 10 - 2 - 3 }}{{ 2 * 3 % 4 }}{{ 1 + 2 ~ 3 }}
""".strip("\n").split("\n")


def cases():
    """(name, source, input) of every comparison."""
    folder = pathlib.Path(fetch.fetch("templates"))
    templates = {p.stem: p.read_text() for p in sorted(folder.glob("*.jinja"))}
    reader = gguf.GGUFReader(fetch.fetch("smollm2"))
    templates["SmolLM2's file"] = reader.get_field("tokenizer.chat_template").contents()
    for name, source in templates.items():
        for kind, conversation in CONVERSATIONS.items():
            for prompt in (False, True):
                yield f"{name}, {kind}, prompt {prompt}", source, {**conversation, "add_generation_prompt": prompt}
    for i, source in enumerate(SOURCES):
        yield f"rule {i}: {source[:60]}", source, dict(messages=TURNS)
    layout = "  {% if true %}\n  a\n  {%- if true %}  \n b {%+ if true %}\n{% endif +%}\n\n{%- endif -%}\n {{ 1 -}}  \n{# c #}\n x\n\n {% endif %}\n\n"
    yield "whitespace", layout, dict(messages=[])


compiled = {}


def expected(env, source, given):
    try:
        known = {"tools": given.get("tools"), "documents": None, "bos_token": "<BOS>", "eos_token": "<EOS>",
                 "add_generation_prompt": given.get("add_generation_prompt", False), **given.get("variables", {})}
        if source not in compiled:
            compiled[source] = env.from_string(source)
        return compiled[source].render(messages=given["messages"], **known), None
    except Exception as e:  # noqa: BLE001: whatever Python raises is an error of the template
        return None, e


def main():
    env, all_cases = environment(), list(cases())
    lines = "".join(json.dumps({"source": s, "now": NOW, **given}) + "\n" for _, s, given in all_cases)
    done = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    assert len(results) == len(all_cases)
    wrong = failed = 0
    for (name, source, given), found in zip(all_cases, results):
        text, error = expected(env, source, given)
        failed += error is not None
        same = found.get("text") == text
        if same and isinstance(error, Raised):
            same = found["code"] == "template.raised"
        if not same:
            wrong += 1
            if wrong <= int(os.environ.get("PLUMB_SHOW", "20")):
                print(f"{name}:\n  expected {text!r} {error!r}\n  found    {found}")
    print(f"{len(all_cases) - wrong} of {len(all_cases)} renderings equal jinja2's, {failed} of them errors of both")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
