"""Token ids equal llama.cpp's published vectors, for every vocabulary that has some.

The vocabularies (ggml-vocab-*.gguf with .inp and .out) come from the PyPI source package llama-cpp-python, vendor/
llama.cpp/models; scripts/fetch.py keeps them in a cache and PLUMB_VOCABS may name a folder that holds them. Texts in
.inp are separated by a line __ggml_vocab_test__; .out has the ids of each on a line, without BOS. Vocabularies of
algorithms that Plumb does not have must be refused by name. What llama.cpp's vectors do not reach is compared through
PLUMB_LIBLLAMA, a libllama.so, on random texts, when that variable is set.

Usage: tokenizer_vectors_test.py TOOL, where TOOL is plumb_tokenize_tool.
"""

import ctypes
import os
import pathlib
import random
import subprocess
import sys

REFUSED = {"bert-bge", "nomic-bert-moe"}  # WordPiece and Unigram
WANTED = {"llama-spm", "llama-bpe", "qwen2", "qwen35", "gpt-2", "deepseek-llm", "deepseek-coder", "starcoder", "refact",
          "falcon", "mpt", "command-r", "phi-3", "gemma-4"}
HELLO = {"llama-spm": [15043, 3186, 13]}  # "Hello world\n"


def folder():
    if "PLUMB_VOCABS" in os.environ:
        return pathlib.Path(os.environ["PLUMB_VOCABS"])
    script = pathlib.Path(__file__).parent.parent / "scripts" / "fetch.py"
    out = subprocess.run([sys.executable, script, "vocabs"], check=True, stdout=subprocess.PIPE, text=True)
    return pathlib.Path(out.stdout.strip().splitlines()[-1])


def ask(tool, vocabulary, texts, *flags):
    """Ids of all texts, or None when Plumb refuses the vocabulary as one of an algorithm that it has not."""
    records = b"".join(b"%d\n" % len(t) + t for t in texts)
    done = subprocess.run([tool, vocabulary, "--check-spans", *flags], input=records, capture_output=True)
    if done.returncode == 3:
        return None
    if done.returncode != 0:
        raise SystemExit(f"{vocabulary}: {done.stderr.decode(errors='replace')}")
    return [[int(i) for i in line.split()] for line in done.stdout.decode().split("\n")[:-1]]


def published(path):
    texts = path.with_name(path.name + ".inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = path.with_name(path.name + ".out").read_text().splitlines()
    if texts and len(texts) == len(lines) + 1:
        texts.pop()
    return [t.encode() for t in texts], [[int(i) for i in line.split()] for line in lines]


def check_published(tool, path):
    """Number of wrong cases; 0 and a word when refused as expected."""
    name = path.name.removeprefix("ggml-vocab-").removesuffix(".gguf")
    if name in REFUSED:
        if ask(tool, path, [b"x"]) is not None:
            print(f"{name}: accepted, though it needs an algorithm that Plumb does not have")
            return 1
        print(f"{name}: refused by name, as it should be")
        return 0
    if not path.with_name(path.name + ".inp").exists():
        print(f"{name}: loads, {len(ask(tool, path, [b'Hello world'])[0])} tokens in 'Hello world'; has no vectors")
        return 0
    texts, expected = published(path)
    if name in HELLO:
        texts.append(b"Hello world\n")
        expected.append(HELLO[name])
    found = ask(tool, path, texts)
    wrong = [i for i in range(len(expected)) if found[i] != expected[i]]
    for i in wrong[:5]:
        print(f"{name}, case {i}, {texts[i]!r}:\n  expected {expected[i]}\n  found    {found[i]}")
    print(f"{name}: {len(expected) - len(wrong)} of {len(expected)} cases equal")
    return len(wrong) + (len(texts) != len(expected))


def random_texts(count, seed):
    """Short texts that mix scripts, spaces, digits, contractions, special tokens, and any code point at all."""
    r = random.Random(seed)
    words = ["Hello", "world", "I'm", "we'll", "DON'T", "'re", "'\u017f", "na\u00efve", "\u00c9cole",
             "a\u00c9b", "\ufb01n", "\u65e5\u672c\u8a9e", "\ud55c\uad6d\uc5b4",
             "\u041f\u0440\u0438\u0432\u0435\u0442", "\u0928\u092e\u0938\u094d\u0924\u0947",
             "\u0645\u0631\u062d\u0628\u0627", "\u0e44\u0e17\u0e22", "\U0001f600",
             "\U0001f469\u200d\U0001f680", "3.14", "1234567", "\u0663\u0664\u0665", "\u2167", "\u00bd",
             "x\u00b2", "\n", "\r\n", "\t", "  ", "   ", "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e",
             "\u200b", "\u2581", "<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<0x41>", "...",
             "!!!", "=>", "`", "$", "\\", "//", "_", "{}", "\u2014", "\u3002", "\uff01", "e\u0301",
             "a" * 40, " " * 37, "\n" * 20, "ab" * 30, "\x00", "\x1c", "\x7f", "\U0001d4b3", "\U0002ebf0",
             "\u31ef"]
    texts = []
    for i in range(count):
        parts = []
        for _ in range(r.randint(1, 12)):
            kind = r.random()
            if kind < 0.6:
                parts.append(r.choice(words))
            elif kind < 0.7:
                parts.append(chr(r.randint(32, 126)) * r.randint(1, 4))
            elif kind < 0.85:
                parts.append("".join(chr(r.randint(33, 0x2FFF)) for _ in range(r.randint(1, 4))))
            else:
                code = r.randint(0, 0x10FFFF)
                parts.append(chr(code) if not 0xD800 <= code < 0xE000 else "?")
            if r.random() < 0.5:
                parts.append(" ")
        text = "".join(parts).encode()
        if i % 10 == 9:  # some bytes that are no UTF-8
            cut = bytearray(text)
            for _ in range(3):
                cut.insert(r.randint(0, len(cut)), r.choice([0x80, 0xC1, 0xC3, 0xE2, 0xED, 0xF0, 0xF8, 0xFF]))
            text = bytes(cut)
        texts.append(text)
    return texts


class Llama:
    """llama.cpp itself, through the C interface of a libllama.so."""

    def __init__(self, library):
        self.lib = ctypes.CDLL(library)
        self.lib.llama_model_default_params.restype = Params
        self.lib.llama_model_load_from_file.restype = ctypes.c_void_p
        self.lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Params]
        self.lib.llama_model_get_vocab.restype = ctypes.c_void_p
        self.lib.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        self.lib.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32,
                                            ctypes.POINTER(ctypes.c_int32), ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
        self.silence = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.lib.llama_log_set(self.silence, None)

    def load(self, path):
        params = self.lib.llama_model_default_params()
        params.vocab_only = True
        return self.lib.llama_model_get_vocab(self.lib.llama_model_load_from_file(str(path).encode(), params))

    def tokenize(self, vocab, text, parse_special):
        ids = (ctypes.c_int32 * (4 * len(text) + 16))()
        n = self.lib.llama_tokenize(vocab, text, len(text), ids, len(ids), False, parse_special)
        return list(ids[:n])


class Params(ctypes.Structure):
    """llama_model_params up to vocab_only; the layout is that of the llama.cpp named in PLUMB_LIBLLAMA."""

    _fields_ = [("devices", ctypes.c_void_p), ("overrides", ctypes.c_void_p), ("n_gpu_layers", ctypes.c_int32),
                ("split_mode", ctypes.c_int), ("load_mode", ctypes.c_int), ("lazy_mode", ctypes.c_int),
                ("main_gpu", ctypes.c_int32),
                ("tensor_split", ctypes.c_void_p), ("progress", ctypes.c_void_p), ("user_data", ctypes.c_void_p),
                ("kv_overrides", ctypes.c_void_p), ("vocab_only", ctypes.c_bool), ("rest", ctypes.c_bool * 5)]


def check_random(tool, llama, path, count):
    vocab = llama.load(path)
    texts = random_texts(count, seed=len(path.name))
    wrong = 0
    for special in (False, True):
        found = ask(tool, path, texts, *(["--parse-special"] if special else []))
        if found is None:
            return 0
        for text, ids in zip(texts, found):
            expected = llama.tokenize(vocab, text, special)
            if ids != expected:
                wrong += 1
                if wrong <= 5:
                    print(f"{path.name}, parse_special={special}, {text!r}:\n  expected {expected}\n  found    {ids}")
    print(f"{path.name}: {2 * count - wrong} of {2 * count} random texts equal llama.cpp")
    return wrong


def main():
    tool = sys.argv[1]
    paths = sorted(folder().glob("ggml-vocab-*.gguf"))
    missing = {f"ggml-vocab-{name}.gguf" for name in WANTED} - {p.name for p in paths}
    wrong = len(missing)
    for name in sorted(missing):
        print(f"{name}: not in {folder()}")
    for path in paths:
        wrong += check_published(tool, path)
    if "PLUMB_LIBLLAMA" in os.environ:
        llama = Llama(os.environ["PLUMB_LIBLLAMA"])
        for path in paths:
            if path.name.removeprefix("ggml-vocab-").removesuffix(".gguf") not in REFUSED:
                wrong += check_random(tool, llama, path, int(os.environ.get("PLUMB_RANDOM_TEXTS", "1000")))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
