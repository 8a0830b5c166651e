"""Writes models of TinyLlama's shape with random weights, for speed races: python3 bench/make_model.py OUT.gguf

Speed depends on shapes and formats, not on values; only finite activations are needed. Matrices have deviation
1/sqrt(columns), and less where a layer writes into the residual stream, so that its norm grows slowly: Gaussian in F16
(quantise with `llama-quantize OUT.gguf OTHER.gguf Q4_0`), or with --type at once random codes of a format, in seconds
instead of minutes. The tokenizer comes from a vocabulary file (default: llama.cpp's llama-spm, 32,000 tokens), so that
every engine loads the result. Needs numpy and the gguf package.
"""

import argparse
import os

import gguf
import numpy as np

VOCABULARY = "~/.cache/plumb/llama.cpp-vocabs-0.3.36/ggml-vocab-llama-spm.gguf"


def copy_tokenizer(writer, path):
    """Adds every tokenizer key of the file at `path`; returns how many tokens it has."""
    tokens = 0
    for name, field in gguf.GGUFReader(path).fields.items():
        if not name.startswith("tokenizer."):
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
        if name == "tokenizer.ggml.tokens":
            tokens = len(field.data)
    return tokens


def shapes(args, n_vocab):
    """Yields (name, rows, columns, deviation); columns is 0 for a vector of ones."""
    wide, inner = args.embedding, args.feed_forward
    kv = wide // args.heads * args.heads_kv
    residual = 1 / np.sqrt(2 * args.layers)
    yield "token_embd.weight", n_vocab, wide, 0.02
    for layer in range(args.layers):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", wide, 0, 0
        yield at + "attn_q.weight", wide, wide, wide**-0.5
        yield at + "attn_k.weight", kv, wide, wide**-0.5
        yield at + "attn_v.weight", kv, wide, wide**-0.5
        yield at + "attn_output.weight", wide, wide, residual * wide**-0.5
        yield at + "ffn_norm.weight", wide, 0, 0
        yield at + "ffn_gate.weight", inner, wide, wide**-0.5
        yield at + "ffn_up.weight", inner, wide, wide**-0.5
        yield at + "ffn_down.weight", wide, inner, residual * inner**-0.5
    yield "output_norm.weight", wide, 0, 0
    yield "output.weight", n_vocab, wide, wide**-0.5


# Of each format: values per block, bytes, where its f16 scale lies, the deviation of a value whose scale is 1.
BLOCKS = {"Q4_0": (32, 18, 0, 4.6), "Q4_1": (32, 20, 0, 8.8), "Q8_0": (32, 34, 0, 74), "Q4_K": (256, 144, 0, 8.8 * 36),
          "Q6_K": (256, 210, 208, 18.5 * 74)}
MINIMUM = {"Q4_1": 2, "Q4_K": 2}  # where the f16 scale of the minima lies, which becomes 0


def format_of(kind, name, layer, layers):
    """The format of a matrix in a file of that type; Q4_K_M mixes two, as llama-quantize does."""
    if kind != "Q4_K_M":
        return kind
    more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    return "Q6_K" if name == "output.weight" or more and ("attn_v" in name or "ffn_down" in name) else "Q4_K"


def blocks(random, kind, rows, columns, deviation):
    """Random blocks of a format: scales of that deviation and either sign, all other bytes as they come."""
    values, size, scale, unit = BLOCKS[kind]
    data = random.integers(0, 256, (rows * columns // values, size), np.uint8)
    signs = random.integers(0, 2, len(data)) * 2 - 1
    data[:, scale:scale + 2] = (signs * (deviation / unit)).astype(np.float16).view(np.uint8).reshape(-1, 2)
    if kind in MINIMUM:
        data[:, MINIMUM[kind]:MINIMUM[kind] + 2] = 0
    return data.reshape(rows, -1)


def add_matrix(writer, args, random, name, rows, columns, deviation):
    layer = int(name.split(".")[1]) if name.startswith("blk.") else -1
    kind = format_of(args.type, name, layer, args.layers)
    if kind == "F16":
        data = (random.standard_normal((rows, columns), np.float32) * np.float32(deviation)).astype(np.float16)
        return writer.add_tensor(name, data)
    if columns % BLOCKS[kind][0] != 0:
        raise SystemExit(f"{name}: {columns} columns are no multiple of {BLOCKS[kind][0]}")
    data = blocks(random, kind, rows, columns, deviation)
    writer.add_tensor(name, data, raw_dtype=getattr(gguf.GGMLQuantizationType, kind))


def write(args):
    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_name("random " + os.path.basename(args.out))
    writer.add_context_length(args.context)
    writer.add_embedding_length(args.embedding)
    writer.add_block_count(args.layers)
    writer.add_feed_forward_length(args.feed_forward)
    writer.add_rope_dimension_count(args.embedding // args.heads)
    writer.add_head_count(args.heads)
    writer.add_head_count_kv(args.heads_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    n_vocab = copy_tokenizer(writer, os.path.expanduser(args.vocabulary))
    writer.add_vocab_size(n_vocab)
    random = np.random.default_rng(args.seed)
    for name, rows, columns, deviation in shapes(args, n_vocab):
        if columns == 0:
            writer.add_tensor(name, np.ones(rows, np.float32))
        else:
            add_matrix(writer, args, random, name, rows, columns, deviation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--type", default="F16", choices=["F16", "Q4_K_M", *BLOCKS])
    parser.add_argument("--vocabulary", default=VOCABULARY, help="GGUF file whose tokenizer is copied")
    for name, value in (("embedding", 2048), ("feed-forward", 5632), ("layers", 22), ("heads", 32), ("heads-kv", 4),
                        ("context", 2048), ("seed", 1)):
        parser.add_argument("--" + name, type=int, default=value)
    write(parser.parse_args())


if __name__ == "__main__":
    main()
