"""A GGUF file as Hugging Face's model classes want it: config.json and weights under their names.

What GGUF changed is undone: rows of q and k of `llama` go back into halves order, Gemma's norm weights lose their added 1.
Everything is decoded to f32 by the PyPI package `gguf`.

    python3 tools/record/hf_weights.py MODEL.gguf FOLDER     # config.json and model.safetensors, f32
"""

import json
import math
import sys
from pathlib import Path

import common

PACKAGES = "gguf numpy"
gguf = common.module("gguf", PACKAGES)
np = common.module("numpy", PACKAGES)

NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
         "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
GEMMA_NAMES = NAMES | {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
                       "post_ffw_norm": "post_feedforward_layernorm"}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
           "gemma3": "Gemma3ForCausalLM"}


class GgufFile:
    """Metadata by short names, decoded tensors."""

    def __init__(self, path):
        self.path = Path(path)
        try:
            self.reader = gguf.GGUFReader(str(path))
            self.arch = self.reader.fields["general.architecture"].contents()
        except (ValueError, KeyError, IndexError) as e:
            common.fail(f"{path} is no GGUF file that can be read: {e}", 2)
        self.tensors = {t.name: t for t in self.reader.tensors}
        if self.arch not in CLASSES:
            common.fail(f"{path}: architecture {self.arch}; {', '.join(CLASSES)} are known", 2)

    def meta(self, key, default=None):
        field = self.reader.fields.get(f"{self.arch}.{key}")
        value = default if field is None else field.contents()
        if value is None:
            common.fail(f"{self.path}: no key {self.arch}.{key}", 2)
        return value.item() if hasattr(value, "item") else value

    def f32(self, name):
        tensor = self.tensors[name]
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return np.asarray(value, np.float32).reshape([int(n) for n in reversed(tensor.shape)])

    def heads(self):
        """(query heads, key heads, head width)."""
        n_head = self.meta("attention.head_count")
        return (n_head, self.meta("attention.head_count_kv", n_head),
                self.meta("attention.key_length", self.meta("embedding_length") // n_head))


def hf_name(name, gemma):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    stem, _, kind = name.rpartition(".")
    if stem.startswith("blk."):
        _, layer, part = stem.split(".")
        return f"model.layers.{layer}.{(GEMMA_NAMES if gemma else NAMES)[part]}.{kind}"
    return f"{WHOLE[stem]}.{kind}"


def halves_order(weight, n_head):
    """Rows of each head from pairs (0 h/2 1 h/2+1 ..), GGUF's order for `llama`, back to (0 1 .. h-1)."""
    half = weight.shape[0] // n_head // 2
    return weight.reshape(n_head, half, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def llama3_factors(base, head_dim, p):
    """rope_freqs.weight as Llama 3's rope parameters make it: what each frequency is divided by."""
    wavelength = 2 * math.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    ratio = p["original_max_position_embeddings"] / wavelength
    smooth = (ratio - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
    smooth = np.clip(smooth, 0, 1)
    return 1 / ((1 - smooth) / p["factor"] + smooth)


def llama3_parameters(factors, base):
    """The rope parameters from which factors were made, with the published low and high of 1 and 4; or None."""
    for power in range(5, 21):
        p = {"rope_type": "llama3", "factor": float(np.max(factors)), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 1 << power}
        if np.allclose(llama3_factors(base, 2 * len(factors), p), factors, rtol=1e-5, atol=0):
            return p
    return None


def rope_scaling(g, base):
    if "rope_freqs.weight" in g.tensors:
        found = llama3_parameters(g.f32("rope_freqs.weight"), base)
        return found or common.fail(f"{g.path}: rope_freqs.weight is none of Llama 3's; use the original folder", 2)
    kind = g.meta("rope.scaling.type", "none")
    if kind == "linear":
        return {"rope_type": "linear", "factor": g.meta("rope.scaling.factor")}
    if kind == "yarn":
        return {"rope_type": "yarn", "factor": g.meta("rope.scaling.factor"),
                "original_max_position_embeddings": g.meta("rope.scaling.original_context_length")}
    return None


def config(g):
    """config.json of the file."""
    n_head, n_head_kv, head_dim = g.heads()
    base = g.meta("rope.freq_base", 10000.0)
    c = {"architectures": [CLASSES[g.arch]], "model_type": "gemma3_text" if g.arch == "gemma3" else g.arch,
         "hidden_size": g.meta("embedding_length"), "num_hidden_layers": g.meta("block_count"),
         "intermediate_size": g.meta("feed_forward_length"), "num_attention_heads": n_head,
         "num_key_value_heads": n_head_kv, "head_dim": head_dim,
         "rms_norm_eps": g.meta("attention.layer_norm_rms_epsilon"),
         "vocab_size": int(g.tensors["token_embd.weight"].shape[1]), "rope_theta": base,
         "max_position_embeddings": g.meta("context_length"), "rope_scaling": rope_scaling(g, base),
         "tie_word_embeddings": "output.weight" not in g.tensors, "attention_bias": "blk.0.attn_output.bias" in g.tensors,
         "torch_dtype": "float32"}
    if g.arch == "gemma3":  # the scale of the scores is in no key of the file: the largest model's differs
        largest = c["num_hidden_layers"] == 62
        c |= {"query_pre_attn_scalar": c["hidden_size"] // n_head if largest else head_dim,
              "sliding_window": g.meta("attention.sliding_window"), "sliding_window_pattern": 6,
              "rope_local_base_freq": g.meta("rope.freq_base_swa", 10000.0)}
    return c


def weights(g):
    """(name, f32 array) of every weight, one at a time."""
    n_head, n_head_kv, _ = g.heads()
    for name in g.tensors:
        part = name.split(".")[-2]
        if part == "rope_freqs":
            continue
        value = g.f32(name)
        if g.arch == "llama" and part in ("attn_q", "attn_k"):
            value = halves_order(value, n_head if part == "attn_q" else n_head_kv)
        if g.arch == "gemma3" and part.endswith("norm"):
            value = value - np.float32(1)
        yield hf_name(name, g.arch == "gemma3"), value


def write_folder(source, folder):
    """The folder must not exist; it appears complete."""
    g, folder = GgufFile(source), Path(folder)
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir()
    (part / "config.json").write_text(json.dumps(config(g), indent=1))
    index, at = {}, 0
    for name in g.tensors:
        if name == "rope_freqs.weight":
            continue
        shape = [int(n) for n in reversed(g.tensors[name].shape)]
        size = 4 * math.prod(shape)
        index[hf_name(name, g.arch == "gemma3")] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(index | {"__metadata__": {"format": "pt"}}).encode()
    head += b" " * (-len(head) % 8)
    with open(part / "model.safetensors", "wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for _, value in weights(g):
            out.write(value.tobytes())
    part.rename(folder)


def main(arguments):
    if len(arguments) != 2:
        common.fail("expected MODEL.gguf FOLDER", 4)
    write_folder(common.existing(arguments[0]), common.new_path(arguments[1]))


if __name__ == "__main__":
    common.run(main)
