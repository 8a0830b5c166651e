"""Asks a server for the log-probabilities of its likeliest tokens and writes them as an evidence file.

    plumb record http http://localhost:8080 -m MODEL.gguf -p "Hello world" -n 8 -o theirs.json
    plumb diff theirs.json -m MODEL.gguf

llama-server (POST /completion, n_probs) and servers of OpenAI's /v1/completions (logprobs) are known; --api chooses, otherwise
both are tried in this order. The prompt goes as token ids; -m names the GGUF file whose tokenizer makes them and
knows the servers' words again. Answers are greedy. A key is taken from the environment: --key-env NAME.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

import common

MOST_BYTES = 256 << 20
TIMEOUT = 600  # seconds


class Server:
    def __init__(self, url, key):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            common.fail(f"{url}: expected http://HOST[:PORT] or https://...", 4)
        self.url, self.key = url.rstrip("/"), key

    def post(self, path, body):
        """The answer's JSON, or None where the server does not know the path."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if self.key:
            request.add_header("Authorization", "Bearer " + self.key)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read(MOST_BYTES))
        except urllib.error.HTTPError as e:
            if e.code in (404, 405):
                return None
            common.fail(f"{self.url + path}: status {e.code}: {' '.join(e.read(400).decode(errors='replace').split())[:200]}")
        except (urllib.error.URLError, OSError, ValueError) as e:
            common.fail(f"{self.url + path}: {getattr(e, 'reason', e)}")


class Words:
    """The id of a token that a server names by its text."""

    def __init__(self, model):
        self.model, self.known = model, {}

    def id(self, word):
        if word.startswith("token_id:"):
            return int(word[9:])
        if word not in self.known:
            found = common.tokenize(self.model, word, special=False) if word else []
            self.known[word] = found[0] if len(found) == 1 else None
        return self.known[word]


def from_llama_server(server, ids, args):
    """[(id, {id: log-probability})] of each step, or None."""
    answer = server.post("/completion", {"prompt": ids, "n_predict": args.steps, "n_probs": args.top, "temperature": 0,
                                         "cache_prompt": False, "return_tokens": True, "stream": False})
    if answer is None:
        return None
    steps = answer.get("completion_probabilities")
    if not steps or "top_logprobs" not in steps[0]:
        common.fail("the server gave no completion_probabilities with top_logprobs; llama-server since December 2024 does")
    return [(s["id"], {t["id"]: t["logprob"] for t in s["top_logprobs"]}) for s in steps]


def from_openai(server, ids, args):
    words = Words(args.model)
    answer = server.post("/v1/completions", {"model": args.name, "prompt": ids, "max_tokens": args.steps, "logprobs": args.top,
                                             "temperature": 0, "stream": False})
    if answer is None:
        return None
    found = (answer.get("choices") or [{}])[0].get("logprobs") or {}
    if not found.get("top_logprobs"):
        common.fail("the server gave no logprobs.top_logprobs; not every server of /v1/completions has them")
    steps = []
    for token, top in zip(found["tokens"], found["top_logprobs"]):
        named = {words.id(word): x for word, x in top.items()}
        named.pop(None, None)
        steps.append((words.id(token), named))
    return steps


APIS = {"llama": from_llama_server, "openai": from_openai}


def ask(server, ids, args):
    for api in [args.api] if args.api else APIS:
        steps = APIS[api](server, ids, args)
        if steps is not None:
            return api, steps
    common.fail(f"{server.url}: neither /completion nor /v1/completions is there")


def evidence(args, api, ids, steps):
    records, fed = [], list(ids)
    for i, (token, top) in enumerate(steps):
        if len(top) >= 2:
            records.append({"value": "logits", "raw": "logprob", "step": i, "tokens": [len(fed) - 1, 1], "gauges": ["logits_shift"],
                            "samples": [[k, x] for k, x in sorted(top.items(), key=lambda e: (-e[1], e[0]))]})
        if token is None or i + 1 == len(steps):
            break  # what follows depends on a token that is not known
        fed.append(token)
    if not records:
        common.fail("none of the server's tokens is one of this model's; is -m the model that it runs?")
    return {"plumb_trace": 1, "engine": {"name": api + " server", "command": sys.argv}, "level": "stats",
            "model": {"file": args.model.name, "bytes": args.model.stat().st_size},
            "input": {"tokens": fed, "prompt": len(ids), "calls": [len(ids)] + [1] * (len(fed) - len(ids))},
            "generated": [token for token, _ in steps if token is not None], "records": records}


def main(arguments):
    p = common.parser(__doc__)
    p.add_argument("url", help="http://HOST:PORT, without the path")
    p.add_argument("-m", "--model", required=True, type=common.existing, help="the GGUF file that the server runs")
    p.add_argument("-n", "--steps", type=common.count, default=1, help="tokens to ask for (1)")
    p.add_argument("--top", type=common.count, default=20, help="log-probabilities per token (20; OpenAI allows 5)")
    p.add_argument("--api", choices=list(APIS), help="default: what answers")
    p.add_argument("--name", default="default", help="the server's name of the model, for --api openai")
    p.add_argument("--key-env", metavar="NAME", help="environment variable that holds the key")
    args = p.parse_args(arguments)
    if args.steps < 1 or args.top < 2:
        common.fail("-n must be 1 or more and --top 2 or more", 4)
    server = Server(args.url, os.environ.get(args.key_env) if args.key_env else None)
    ids = args.tokens or common.tokenize(args.model, args.prompt)
    api, steps = ask(server, ids, args)
    common.write_json(args.output, evidence(args, api, ids, steps))


if __name__ == "__main__":
    common.run(main)
