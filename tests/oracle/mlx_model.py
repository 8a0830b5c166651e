"""Runs mlx-lm's own model classes on the CPU in f32 over weights decoded by `gguf`: the second oracle.

mlx-lm wrote its llama, qwen2, qwen3 and gemma3_text after Hugging Face's definitions, so this checks NumPy's reading
of them. What GGUF changed is undone here: rows of q and k of `llama` are put back into halves order, and Gemma's
norm weights lose their added 1. mlx-lm rounds Gemma's embedding scale to bf16 (25.25 for sqrt(640) = 25.298); here
the embeddings are handed over times the quotient, so that the scale is f32's, as in llama.cpp; rounded_scale=True
leaves mlx-lm's own, which is what its published logits contain. Rope scaling is given in mlx-lm's own configuration, not by the file's factors.

    python3 mlx_model.py MODEL.gguf --tokens 504,3575,282 [--top 3]
"""

import argparse
import importlib

import mlx.core as mx
import numpy as np
from weights import Weights

NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
GEMMA_NAMES = NAMES | {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
                       "post_ffw_norm": "post_feedforward_layernorm"}


def hf_name(name, gemma):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    stem, _, kind = name.rpartition(".")
    if stem.startswith("blk."):
        _, layer, part = stem.split(".")
        return f"model.layers.{layer}.{(GEMMA_NAMES if gemma else NAMES)[part]}.{kind}"
    return {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[stem] + "." + kind


def halves_order(weight, n_head):
    """Rows of each head from neighbours (0 h/2 1 h/2+1 ..), GGUF's order for `llama`, back to (0 1 .. h-1)."""
    rows = weight.shape[0] // n_head // 2
    return weight.reshape(n_head, rows, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def rope_scaling(w, llama3):
    kind = w.meta("rope.scaling.type", "none")
    if llama3:
        return {"rope_type": "llama3", **llama3}
    if kind == "linear":
        return {"rope_type": "linear", "factor": w.meta("rope.scaling.factor")}
    if kind == "yarn":
        return {"rope_type": "yarn", "factor": w.meta("rope.scaling.factor"),
                "original_max_position_embeddings": w.meta("rope.scaling.original_context_length")}
    return None


def load(w, llama3=None):
    """The mlx-lm model with the file's weights. llama3: the parameters from which rope_freqs.weight was made."""
    gemma = w.arch == "gemma3"
    module = importlib.import_module("mlx_lm.models." + ("gemma3_text" if gemma else w.arch))
    n_head = w.meta("attention.head_count")
    n_head_kv = w.meta("attention.head_count_kv", n_head)
    head_dim = w.meta("attention.key_length", w.meta("embedding_length") // n_head)
    config = {
        "model_type": w.arch, "hidden_size": w.meta("embedding_length"), "num_hidden_layers": w.meta("block_count"),
        "intermediate_size": w.meta("feed_forward_length"), "num_attention_heads": n_head,
        "num_key_value_heads": n_head_kv, "head_dim": head_dim,
        "rms_norm_eps": w.meta("attention.layer_norm_rms_epsilon"),
        "vocab_size": int(w.tensors["token_embd.weight"].shape[1]), "rope_theta": w.meta("rope.freq_base", 10000.0),
        "max_position_embeddings": w.meta("context_length"), "rope_scaling": rope_scaling(w, llama3),
        "tie_word_embeddings": "output.weight" not in w, "attention_bias": "blk.0.attn_q.bias" in w,
    }
    if gemma:
        config |= {"query_pre_attn_scalar": head_dim, "sliding_window": w.meta("attention.sliding_window"),
                   "rope_local_base_freq": w.meta("rope.freq_base_swa", 10000.0)}
    model = module.Model(module.ModelArgs.from_dict(config))
    weights = {}
    for name in w.tensors:
        if name == "rope_freqs.weight":
            continue
        value = w.f32(name)
        part = name.split(".")[-2]
        if w.arch == "llama" and part in ("attn_q", "attn_k"):
            value = halves_order(value, n_head if part == "attn_q" else n_head_kv)
        if gemma and part.endswith("norm"):
            value = value - np.float32(1)
        weights[hf_name(name, gemma)] = mx.array(value)
    if "lm_head.weight" not in weights and "lm_head" in model:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_weights(list(weights.items()), strict=True)
    return model


def all_logits(w, ids, llama3=None, rounded_scale=False):
    """Logits of every position: [T, vocab] in f32. w: Weights of the file."""
    mx.set_default_device(mx.cpu)
    model = load(w, llama3)
    tokens = mx.array([ids])
    if w.arch == "gemma3" and not rounded_scale:
        scale = w.meta("embedding_length") ** 0.5
        rounded = mx.array(scale, mx.bfloat16).astype(mx.float32).item()
        y = model(tokens, None, model.model.embed_tokens(tokens) * (scale / rounded))[0]
    else:
        y = model(tokens)[0]
    mx.eval(y)
    return np.array(y)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--rounded-scale", action="store_true")
    arguments = parser.parse_args()
    ids = [int(text) for text in arguments.tokens.split(",")]
    y = all_logits(Weights(arguments.model), ids, rounded_scale=arguments.rounded_scale)[-1]
    print(" ".join(f"{i}:{y[i]:.6f}" for i in np.argsort(-y, kind="stable")[:arguments.top]))


if __name__ == "__main__":
    main()
