"""Plumb's names for what modules of Hugging Face's model classes take and give; mlx-lm's have the same paths.

An engine calls `output` and `input` with a module's path and an array, in the order of the computation, and `rotated` for
q and k after the rotation. Architectures: llama, qwen2, qwen3, gemma3.
"""

import re

from common import module

np = module("numpy", "numpy")

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3",
                 "gemma3_text": "gemma3"}
OUTPUTS = {"": "ffn_out", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
           "self_attn.v_proj": "attn_v", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
           "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
           "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
INPUTS = {"self_attn.o_proj": "attn", "post_attention_layernorm": "attn_out", "mlp.down_proj": "ffn_act"}
GEMMA_OUTPUTS = OUTPUTS | {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                           "post_feedforward_layernorm": "post_ffw_norm"}
GEMMA_INPUTS = {"self_attn.o_proj": "attn", "pre_feedforward_layernorm": "attn_out", "mlp.down_proj": "ffn_act"}
WHOLE = {"embed_tokens": "token_embd", "norm": "output_norm"}
TURNED = ("attn_q", "attn_k", "q_rope", "k_rope")  # rows of `llama` whose order GGUF changes


def place(path):
    """(layer or None, the module's path within it) of a path in the model, or None for other towers."""
    if "vision" in path or "audio" in path:
        return None
    m = re.fullmatch(r"(?:.*\.)?layers\.(\d+)(?:\.(.+))?", path)
    return (int(m[1]), m[2] or "") if m else (None, path.rsplit(".", 1)[-1])


class Values:
    """The values of one run, as records for a TraceWriter."""

    def __init__(self, arch, n_head, n_head_kv, embedding="token_embd"):
        """embedding: what embed_tokens gives, `inp_scaled` where it multiplies as well."""
        self.gemma, self.llama = arch == "gemma3", arch == "llama"
        self.whole = WHOLE | {"embed_tokens": embedding}
        self.heads = {"attn_q": n_head, "attn_q_norm": n_head, "q_rope": n_head, "attn_k": n_head_kv,
                      "attn_k_norm": n_head_kv, "k_rope": n_head_kv, "attn_v": n_head_kv}
        self.records, self.first, self.step, self.n_tokens = [], 0, 0, 0

    def start(self, n_tokens):
        """A call with so many tokens, after those of the calls before."""
        self.first, self.step = self.first + self.n_tokens, self.step + (self.n_tokens > 0)
        self.n_tokens = n_tokens

    def name(self, path, ingoing=False):
        """Plumb's name of a module's output or input, or None."""
        at = place(path)
        if at is None:
            return None
        layer, part = at
        if layer is None:
            return None if ingoing else self.whole.get(part)
        if ingoing and layer == 0 and part == "" and self.gemma and self.whole["embed_tokens"] != "inp_scaled":
            return "inp_scaled"
        table = (GEMMA_INPUTS if ingoing else GEMMA_OUTPUTS) if self.gemma else INPUTS if ingoing else OUTPUTS
        return f"blk.{layer}.{table[part]}" if part in table else None

    def add(self, value, raw, array):
        self.records.append((value, raw, array, self.first, self.step, self.n_tokens))

    def input(self, path, array):
        value = self.name(path, True)
        if value:
            self.add(value, path + " input", array)

    def output(self, path, array):
        value = self.name(path)
        if value:
            self.add(value, path, array)

    def rotated(self, path, query, key):
        """path: of the attention or its rotation, within a layer."""
        layer, _ = place(path)
        for value, array in (("q_rope", query), ("k_rope", key)):
            if array is not None:
                self.add(f"blk.{layer}.{value}", f"{path} {value[0]}", array)

    def weights(self, path, array):
        """path: of the attention; array: [1, heads, tokens, keys] after the softmax."""
        if (at := place(path)) and at[0] is not None:
            self.add(f"blk.{at[0]}.attn.probs", path + " weights", array)

    def rows(self, value, array, n_tokens):
        """[tokens, dim] or [tokens, heads, dim] of an array with a batch of one in front."""
        if value.endswith(".attn.probs"):
            return array[0].swapaxes(0, 1)
        heads = self.heads.get(value.rsplit(".", 1)[-1])
        a = array[0]
        if a.ndim == 3:  # [tokens, heads, dim], or heads in front
            in_front = a.shape[0] != n_tokens or (a.shape[1] == n_tokens and (self.gemma or value.endswith("_rope")))
            return a.swapaxes(0, 1) if in_front else a
        return a.reshape(n_tokens, heads, -1) if heads else a.reshape(n_tokens, -1)

    def write(self, writer, as_numpy):
        """as_numpy: an array of the engine to (NumPy array, type in the engine)."""
        for value, raw, array, first, step, n_tokens in self.records:
            rows, kind = as_numpy(array)
            if value.endswith(".attn.probs"):  # a cache of a window has lost the first keys
                rows = np.pad(rows, [(0, 0)] * 3 + [(max(0, first + n_tokens - rows.shape[-1]), 0)])
            gauges = ["qk_halves"] if self.llama and value.endswith(TURNED) else ()
            writer.add(value, raw, None, self.rows(value, rows, n_tokens), first, step, kind, gauges)
