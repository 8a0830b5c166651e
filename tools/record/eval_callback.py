"""Reads what llama.cpp's llama-eval-callback (or llama-debug) prints and writes it as an evidence file.

    llama-eval-callback -m MODEL.gguf -p "Hello world" -ngl 0 > log.txt 2>&1
    plumb record eval-callback log.txt -o theirs.json
    plumb diff theirs.json -m MODEL.gguf

The printer shows the first and last three elements of every dimension with four decimals; they become samples with that
precision. Nodes whose meaning is known get Plumb's names; the token ids are those that the program prints first.
"""

import argparse
import itertools
import os
import re
import sys

import common
from llamacpp_names import MOVES, canonical

NODE = re.compile(r"(?:common_debug_cb_eval|ggml_debug):\s+(\S.*?) = \((\w+)\)\s+(\w+)\(.*\) = \{(\d+), (\d+), (\d+), (\d+)\}\s*$")
COUNT = re.compile(r"number of input tokens = (\d+)\s*$")
ID = re.compile(r"(?:^|\s)(\d+)\s*$")
NUMBER = re.compile(r"-?(?:nan|inf|\d+\.\d+)")
EDGE = 3  # elements at each end of a dimension
MAX_BYTES = 4 << 30


def printed(n):
    """The indices of a dimension of n that the printer shows."""
    return list(range(n)) if n <= 2 * EDGE else [*range(EDGE), *range(n - EDGE, n)]


def indices(ne):
    """Canonical index of each printed number, in the order of printing. ne: from the fastest axis on."""
    return [i0 + ne[0] * (i1 + ne[1] * i2) for i2, i1, i0 in itertools.product(printed(ne[2]), printed(ne[1]), printed(ne[0]))]


class Reader:
    """Takes lines; gathers the ids and of each value the last node that made it."""

    def __init__(self):
        self.ids, self.expected, self.nodes, self.node = [], 0, [], None

    def line(self, text):
        if m := NODE.match(text):
            self.close()
            raw, _, op, *ne = m.groups()
            self.node = {"raw": raw, "op": op, "ne": [int(n) for n in ne], "numbers": [], "sum": None}
        elif self.node is not None and text.lstrip().startswith("sum = "):
            self.node["sum"] = text.split("=")[1].strip()
            self.close()
        elif self.node is not None:
            self.node["numbers"] += NUMBER.findall(text) if "[" in text else []
        elif m := COUNT.search(text):
            self.expected = int(m.group(1))
        elif len(self.ids) < self.expected and (m := ID.search(text)):
            self.ids.append(int(m.group(1)))

    def close(self):
        node, self.node = self.node, None
        if node and node["ne"][3] == 1 and len(node["numbers"]) == len(indices(node["ne"])):
            self.nodes.append(node)

    def records(self):
        n_tokens = len(self.ids) or max((n["ne"][1] for n in self.nodes if n["op"] == "GET_ROWS"), default=0)
        named = [(self.name(i), node) for i, node in enumerate(self.nodes)]
        last = {value: i for i, (value, _) in enumerate(named) if value}
        for i, (value, node) in enumerate(named):
            if value is None or last[value] != i:
                continue
            d, rows, more = node["ne"][:3]
            tokens, shape = (more, [more, rows, d]) if more > 1 or node["op"] == "ROPE" else (rows, [rows, d])
            if tokens > n_tokens or 0 in shape:
                continue
            yield {"value": value, "raw": node["raw"], "op": node["op"].lower(), "tokens": [n_tokens - tokens, tokens],
                   "shape": shape, "stats": {"sum": node["sum"]} if node["sum"] else {},
                   "samples": [[k, x] for k, x in zip(indices(node["ne"]), node["numbers"])]}

    def name(self, i):
        node = self.nodes[i]
        if node["op"] in MOVES and not node["raw"].startswith("kqv_out-"):
            return None
        value = canonical(node["raw"], node["op"])
        if value is None and node["op"] == "MUL_MAT" and re.fullmatch(r"node_\d+", node["raw"]) and i > 0:
            before = canonical(self.nodes[i - 1]["raw"], self.nodes[i - 1]["op"])  # Gemma 3's output matrix has no name
            value = before + "_output" if before and before.endswith(".attn") else None
        return value


def read(path):
    reader = Reader()
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            reader.line(line)
    reader.close()
    return reader


def main(arguments):
    p = common.Parser(prog=os.environ.get("PLUMB_RECORD"), description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("log", help="the program's output")
    p.add_argument("-o", "--output", required=True, help="the evidence file, which must not exist yet")
    args = p.parse_args(arguments)
    if not os.path.isfile(args.log) or os.path.getsize(args.log) > MAX_BYTES:
        common.fail(f"{args.log}: expected a file of at most {MAX_BYTES >> 30} GiB")
    reader = read(args.log)
    records = list(reader.records())
    if not records:
        common.fail(f"{args.log}: expected lines such as 'common_debug_cb_eval: NAME = (f32) OP(...) = {{...}}', found "
                    f"{len(reader.nodes)} nodes and none with a known name")
    tokens = {"tokens": reader.ids, "prompt": len(reader.ids)} if reader.ids else {}
    common.write_json(args.output, {"plumb_trace": 1, "engine": {"name": "llama.cpp", "backend": "cpu"}, "level": "stats",
                                    "input": tokens, "arithmetic": {"name": "llama.cpp", "weights": "quantised", "kv": "f16"},
                                    "records": records})
    print(f"{len(records)} values of {len(reader.ids)} tokens", file=sys.stderr)


if __name__ == "__main__":
    common.run(main)
