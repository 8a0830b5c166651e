"""Writes models of TinyLlama's shape with random weights, for speed races: python3 bench/make_model.py OUT.gguf

Speed depends on shapes and formats, not on values; only finite activations are needed. Matrices are Gaussian with
deviation 1/sqrt(columns), and smaller where a layer writes into the residual stream, so that its norm grows slowly.
The tokenizer comes from a vocabulary file (default: llama.cpp's llama-spm, 32,000 tokens), so that every engine loads
the result. Needs numpy and the gguf package. Quantise with `llama-quantize OUT.gguf OTHER.gguf Q4_0`.
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
            data = np.ones(rows, np.float32)
        else:
            data = (random.standard_normal((rows, columns), np.float32) * np.float32(deviation)).astype(np.float16)
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--vocabulary", default=VOCABULARY, help="GGUF file whose tokenizer is copied")
    for name, value in (("embedding", 2048), ("feed-forward", 5632), ("layers", 22), ("heads", 32), ("heads-kv", 4),
                        ("context", 2048), ("seed", 1)):
        parser.add_argument("--" + name, type=int, default=value)
    write(parser.parse_args())


if __name__ == "__main__":
    main()
