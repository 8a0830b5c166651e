"""Writes small GGUF models with random weights, for every architecture, format and rope scaling; and a TinyLlama.

Files come from the PyPI packages `gguf` (container) and `libgguf` (quantisers). Everything is seeded: the same
arguments give the same bytes. A quantised weight is made of 256-wide blocks drawn from a pool that libgguf has
quantised (some of its search quantisers need a second per 20,000 weights, so each weight of its own is out of
reach). Weights have rms 1/sqrt(256), norms 1 + 0.2 n, so values stay of order one and logits spread by about one.

    python3 make_models.py small FOLDER            every small model of CASES into FOLDER
    python3 make_models.py tinyllama FORMAT FILE   22 layers, 2048 wide, llama-spm vocabulary
"""

import functools
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import libgguf
import numpy as np

FORMATS = ("F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 TQ1_0 TQ2_0 "
           "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S").split()
FLOAT_FORMATS = ("F32", "F16", "BF16")
SLOW = {"IQ1_S": 128, "IQ2_S": 128, "IQ2_XS": 256, "IQ2_XXS": 256, "IQ1_M": 512, "IQ3_XXS": 512, "IQ3_S": 512}
VOCAB = 300
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


@dataclass
class Case:
    """One small model: its name is its file's, and its seed comes from the name."""

    arch: str
    format: str = "F32"
    variant: str = ""
    n_layer: int = 2
    dim: int = 256
    n_ff: int = 512
    n_head: int = 8
    n_head_kv: int = 2
    head_dim: int = 32
    context: int = 2048
    rope_base: float = 10000.0
    tied: bool = False
    biases: tuple = ()
    window: int = 0
    vocabulary: str = "spm"
    meta: dict = field(default_factory=dict)
    llama3: dict | None = None

    @property
    def name(self):
        return "-".join(part for part in (self.arch, self.variant, self.format) if part)


# What each architecture usually looks like, small.
USUAL = {
    "llama": {},
    "qwen2": {"vocabulary": "bpe", "biases": ("attn_q", "attn_k", "attn_v"), "rope_base": 1e6, "n_head": 4,
              "head_dim": 64},
    "qwen3": {"vocabulary": "bpe", "rope_base": 1e6, "n_head": 4, "head_dim": 128, "tied": True},
    "gemma3": {"n_layer": 7, "n_ff": 256, "n_head": 4, "n_head_kv": 1, "head_dim": 64, "tied": True, "window": 8,
               "rope_base": 1e6},
}


def scaled(kind, factor, original=64):
    return {"rope.scaling.type": kind, "rope.scaling.factor": factor,
            "rope.scaling.original_context_length": original}


def cases():
    """Every architecture in every format, then the variants."""
    yield from (Case(arch, fmt, **USUAL[arch]) for arch in USUAL for fmt in FORMATS)
    for fmt in ("F32", "Q8_0"):
        def case(arch, variant, **changes):
            return Case(arch, fmt, variant, **(USUAL[arch] | changes))
        yield case("llama", "tied", tied=True)
        yield case("llama", "bpe", vocabulary="bpe")
        yield case("llama", "biases", biases=("attn_q", "attn_k", "attn_v", "attn_output"))
        yield case("llama", "mha", n_head_kv=8)
        yield case("llama", "mqa", n_head_kv=1)
        yield case("llama", "wide_heads", head_dim=64)
        yield case("llama", "linear", meta=scaled("linear", 4.0))
        yield case("llama", "yarn", meta=scaled("yarn", 4.0))
        yield case("llama", "llama3", llama3=LLAMA3, rope_base=500000.0, tied=True)
        yield case("qwen2", "tied", tied=True)
        yield case("qwen2", "yarn", meta=scaled("yarn", 4.0))
        yield case("qwen3", "untied", tied=False)
        yield case("qwen3", "yarn", meta=scaled("yarn", 2.0))
        yield case("gemma3", "linear", meta={"rope.scaling.type": "linear", "rope.scaling.factor": 8.0})
        yield case("gemma3", "gqa", n_head_kv=2, window=5)


def llama3_factors(base, head_dim, p):
    """rope_freqs.weight as llama.cpp's converter derives it from Llama 3's rope parameters."""
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2.0 * math.pi * base ** (i / head_dim)
        ratio = p["original_max_position_embeddings"] / wavelength
        smooth = (ratio - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1.0 / ((1.0 - smooth) / p["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


@functools.cache
def pool(fmt):
    """Blocks of 256 random weights in a format: [n, bytes of a block]."""
    kind = gguf.GGMLQuantizationType[fmt]
    count = SLOW.get(fmt, 4096)
    values = np.random.default_rng(1 + int(kind)).standard_normal((count, 256), dtype=np.float32) / 16
    imatrix = np.ones(256, dtype=np.float32) if libgguf.quantize_requires_imatrix(kind) else None
    quantised = libgguf.quantize_rows(values, kind, imatrix)
    return np.ascontiguousarray(quantised).view(np.uint8).reshape(count, -1)


def random_weight(rng, rows, columns, fmt):
    """A [rows, columns] weight as the bytes of its rows."""
    blocks = pool(fmt)
    return blocks[rng.integers(len(blocks), size=(rows, columns // 256))].reshape(rows, -1)


def spm_vocabulary(writer):
    """3 specials, 256 bytes, 41 pieces."""
    pieces = ["\u2581", *"etaoinshrdlucmfwypvbgkjqxz", "th", "he", "in", "er", "an", "on", "\u2581t", "\u2581a",
              "\u2581th", "\u2581the", "\n", ".", ",", "re"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *pieces]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(pieces))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    return len(tokens)


def bpe_vocabulary(writer, pre):
    """256 bytes, 43 merges, 1 special."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [i for i in range(256) if i not in printable]
    letters = {i: chr(i) for i in printable} | {i: chr(256 + n) for n, i in enumerate(others)}
    space = letters[32]
    merges = [("t", "h"), ("th", "e"), (space, "the"), (space, "a"), ("i", "n"), ("e", "r"), ("o", "n")]
    merges += [(a, b) for a in "aeiou" for b in "lmnrst"]
    merges = list(dict.fromkeys(merges))
    merges += [(space, letter) for letter in "bcdfgh" "jklmnpqrsvw"][:43 - len(merges)]
    tokens = [letters[i] for i in range(256)] + [a + b for a, b in merges] + ["<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    return len(tokens)


def hyperparameters(writer, c):
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.dim)
    writer.add_block_count(c.n_layer)
    writer.add_feed_forward_length(c.n_ff)
    writer.add_head_count(c.n_head)
    writer.add_head_count_kv(c.n_head_kv)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(c.rope_base)
    if c.arch == "llama":
        writer.add_rope_dimension_count(c.head_dim)
    if c.window:
        writer.add_sliding_window(c.window)
    for key, value in c.meta.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32 if isinstance(value, int)
         else writer.add_float32)(f"{c.arch}.{key}", value)


def write_case(c, path):
    """Writes one small model; the file appears by a rename."""
    temporary = f"{path}.{os.getpid()}.part"
    writer = gguf.GGUFWriter(temporary, c.arch)
    rng = np.random.default_rng(int.from_bytes(c.name.encode(), "little") % (1 << 64))
    kind = gguf.GGMLQuantizationType[c.format]

    def add_float(name, values):
        writer.add_tensor(name, values.astype(np.float32))

    def add_norm(name, n):
        add_float(name + ".weight", 1.0 + 0.2 * rng.standard_normal(n))

    def add_linear(name, rows, columns):
        writer.add_tensor(name + ".weight", random_weight(rng, rows, columns, c.format), raw_dtype=kind)
        if name.split(".")[-1] in c.biases:
            add_float(name + ".bias", 0.5 * rng.standard_normal(rows))

    writer.add_name(c.name)
    writer.add_quantization_version(2)
    hyperparameters(writer, c)
    n_vocab = spm_vocabulary(writer) if c.vocabulary == "spm" else bpe_vocabulary(
        writer, "llama-bpe" if c.arch == "llama" else "qwen2")
    assert n_vocab == VOCAB, n_vocab
    if c.llama3:
        add_float("rope_freqs.weight", llama3_factors(c.rope_base, c.head_dim, c.llama3))
    add_linear("token_embd", VOCAB, c.dim)
    for layer in range(c.n_layer):
        b = f"blk.{layer}."
        add_norm(b + "attn_norm", c.dim)
        add_linear(b + "attn_q", c.n_head * c.head_dim, c.dim)
        add_linear(b + "attn_k", c.n_head_kv * c.head_dim, c.dim)
        add_linear(b + "attn_v", c.n_head_kv * c.head_dim, c.dim)
        add_linear(b + "attn_output", c.dim, c.n_head * c.head_dim)
        if c.arch in ("qwen3", "gemma3"):
            add_norm(b + "attn_q_norm", c.head_dim)
            add_norm(b + "attn_k_norm", c.head_dim)
        add_norm(b + "ffn_norm", c.dim)
        if c.arch == "gemma3":
            add_norm(b + "post_attention_norm", c.dim)
            add_norm(b + "post_ffw_norm", c.dim)
        add_linear(b + "ffn_gate", c.n_ff, c.dim)
        add_linear(b + "ffn_up", c.n_ff, c.dim)
        add_linear(b + "ffn_down", c.dim, c.n_ff)
    add_norm("output_norm", c.dim)
    if not c.tied:
        add_linear("output", VOCAB, c.dim)
    finish(writer, temporary, path)


def finish(writer, temporary, path):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(temporary, path)


def copy_vocabulary(writer, path):
    """Copies every tokenizer key of a vocabulary file."""
    for name, entry in gguf.GGUFReader(path).fields.items():
        if not name.startswith("tokenizer."):
            continue
        if entry.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, entry.contents())
        else:
            writer.add_key_value(name, entry.contents(), entry.types[0])


def large_weight(rng, rows, columns, fmt, gain=1.0):
    """Random codes written directly, without a quantiser: a gigabyte takes seconds. Decoded rms is gain/sqrt(K)."""
    sigma = gain / math.sqrt(columns)
    if fmt in ("F32", "F16"):
        # 65,536 values spread like a Gaussian of deviation 1: the mean of 12 uniform draws, scaled.
        table = (np.random.default_rng(7).random((65536, 12)).sum(axis=1) - 6.0) * sigma
        table = table.astype(np.float32 if fmt == "F32" else np.float16)
        return table[np.frombuffer(rng.bytes(2 * rows * columns), dtype=np.uint16)].reshape(rows, columns).view(np.uint8)
    n_block = rows * columns // (256 if fmt == "Q6_K" else 32)
    # Uniform codes have rms sqrt((n^2 - 1)/12); scales vary by a factor of two around their mean.
    scale = (0.5 + rng.random(n_block)) / 1.04
    if fmt == "Q4_0":
        layout, rms = [("d", "<f2"), ("qs", "u1", 16)], math.sqrt(255 / 12)
    elif fmt == "Q8_0":
        layout, rms = [("d", "<f2"), ("qs", "i1", 32)], math.sqrt(65535 / 12)
    else:
        layout, rms = [("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")], math.sqrt(4095 / 12)
    blocks = np.frombuffer(rng.bytes(n_block * np.dtype(layout).itemsize), dtype=layout).copy()
    if fmt == "Q6_K":
        blocks["scales"] = rng.integers(-128, 128, size=(n_block, 16))
        rms *= math.sqrt(65535 / 12)
    blocks["d"] = (scale * sigma / rms).astype(np.float16)
    return blocks.view(np.uint8).reshape(rows, -1)


def write_tinyllama(fmt, path, vocabulary):
    """TinyLlama-1.1B's shape; four sets of linear weights serve the 22 layers in turn, norms are each layer's own."""
    dim, n_ff, n_layer, n_head, n_head_kv, n_vocab, distinct = 2048, 5632, 22, 32, 4, 32000, 4
    temporary = f"{path}.{os.getpid()}.part"
    writer = gguf.GGUFWriter(temporary, "llama")
    writer.add_name(f"TinyLlama shape {fmt}")
    writer.add_quantization_version(2)
    hyperparameters(writer, Case("llama", n_layer=n_layer, dim=dim, n_ff=n_ff, n_head=n_head, n_head_kv=n_head_kv,
                                 head_dim=64))
    copy_vocabulary(writer, vocabulary)
    writer.add_vocab_size(n_vocab)
    kind = gguf.GGMLQuantizationType[fmt]
    rng = np.random.default_rng(22)
    kv = n_head_kv * 64
    shapes = {"attn_q": (dim, dim), "attn_k": (kv, dim), "attn_v": (kv, dim), "attn_output": (dim, dim),
              "ffn_gate": (n_ff, dim), "ffn_up": (n_ff, dim), "ffn_down": (dim, n_ff)}
    sets = [{name: large_weight(rng, *shape, fmt) for name, shape in shapes.items()} for _ in range(distinct)]

    def add_norm(name):
        writer.add_tensor(name, (1.0 + 0.2 * rng.standard_normal(dim)).astype(np.float32))

    writer.add_tensor("token_embd.weight", large_weight(rng, n_vocab, dim, fmt, math.sqrt(dim)), raw_dtype=kind)
    for layer in range(n_layer):
        add_norm(f"blk.{layer}.attn_norm.weight")
        add_norm(f"blk.{layer}.ffn_norm.weight")
        for name, data in sets[layer % distinct].items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", data, raw_dtype=kind)
    add_norm("output_norm.weight")
    writer.add_tensor("output.weight", large_weight(rng, n_vocab, dim, fmt, 2.0), raw_dtype=kind)
    finish(writer, temporary, path)


def write_small(folder):
    """Writes the small models that are missing; returns {name: path}."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for c in cases():
        path = paths[c.name] = folder / f"{c.name}.gguf"
        if not path.exists():
            write_case(c, path)
    return paths


def main():
    if sys.argv[1:2] == ["small"] and len(sys.argv) == 3:
        print(len(write_small(sys.argv[2])), "models")
    elif sys.argv[1:2] == ["tinyllama"] and len(sys.argv) == 4:
        fetch = Path(__file__).resolve().parents[2] / "scripts" / "fetch.py"
        folder = subprocess.run([sys.executable, fetch, "vocabs"], check=True, capture_output=True, text=True).stdout
        write_tinyllama(sys.argv[2], sys.argv[3], Path(folder.strip()) / "ggml-vocab-llama-spm.gguf")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
