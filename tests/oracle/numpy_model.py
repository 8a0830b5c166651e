"""A plain NumPy forward pass in f64 for llama, qwen2, qwen3 and gemma3: the oracle that reads like the papers.

It shares nothing with the engine: weights come decoded from the PyPI package `gguf`, are promoted from f32 to f64,
and every operation after that is f64. Nothing is rounded to a KV type, nothing is quantised. Sources: the model
definitions of Hugging Face transformers (LlamaAttention, Qwen2Attention, Qwen3Attention, Gemma3Attention and
modeling_rope_utils), Vaswani 2017, RoFormer (2104.09864), YaRN (2309.00071), RMSNorm (1910.07467), GQA (2305.13245),
and for what GGUF files mean llama.cpp: rows of q and k of the architecture `llama` are permuted so that
the rotated pairs are neighbours; Gemma's norm weights already contain the 1 of (1 + w); `rope_freqs.weight` divides
the frequencies; the YaRN magnitude is attn_factor * (1 + 0.1 ln factor).

Scalars that a formula asks for (square root of the width in Gemma, 1/sqrt(head_dim)) are computed in f64, the
arithmetic's own precision; transformers rounds Gemma's to the weights' type, which is a property of its weights.

Values are returned by the names of architecture.md: a value is called what its weight is called.

    python3 numpy_model.py MODEL.gguf --tokens 504,3575,282 [--top 3] [--greedy 16]
"""

import argparse
import math

import numpy as np

from weights import Weights


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1.0 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


class Rope:
    """The rotation of one kind of layer: n_rot dimensions, frequencies and the magnitude of cos and sin."""

    def __init__(self, n_rot, base, style, scaling="none", factor=1.0, factors=None, yarn=None):
        i = np.arange(n_rot // 2, dtype=np.float64)
        self.freq = base ** (-2.0 * i / n_rot)
        self.style, self.n_rot, self.magnitude = style, n_rot, 1.0
        if factors is not None:
            self.freq = self.freq / factors
        if scaling == "linear":
            self.freq = self.freq / factor
        elif scaling == "yarn":
            def correction(rotations):  # the dimension that turns `rotations` times in the original context
                return n_rot * math.log(yarn["context"] / (rotations * 2.0 * math.pi)) / (2.0 * math.log(base))
            low = max(math.floor(correction(yarn["beta_fast"])), 0)
            high = min(math.ceil(correction(yarn["beta_slow"])), n_rot - 1)
            ramp = np.clip((i - low) / max(high - low, 0.001), 0.0, 1.0)
            self.freq = self.freq * (1.0 - ramp) + self.freq / factor * ramp
            self.magnitude = yarn["attn_factor"] * (1.0 + 0.1 * math.log(factor))
        elif scaling != "none":
            raise ValueError(f"rope scaling {scaling}")

    def __call__(self, x, positions):  # x: [T, heads, head_dim]
        angle = positions[:, None].astype(np.float64) * self.freq[None, :]
        cos = (np.cos(angle) * self.magnitude)[:, None, :]
        sin = (np.sin(angle) * self.magnitude)[:, None, :]
        half = self.n_rot // 2
        pairs = (slice(0, self.n_rot, 2), slice(1, self.n_rot, 2)) if self.style == "neighbours" else (
            slice(0, half), slice(half, self.n_rot))
        a, b = x[..., pairs[0]], x[..., pairs[1]]
        y = x.copy()
        y[..., pairs[0]] = a * cos - b * sin
        y[..., pairs[1]] = b * cos + a * sin
        return y


def attention(q, k, v, start, scale, window):
    """Causal attention with grouped heads. q: [T, heads, d] at positions start.., k, v: [start + T, kv heads, d]."""
    t, n_head, _ = q.shape
    n_kv = k.shape[1]
    q = q.reshape(t, n_kv, n_head // n_kv, -1).transpose(1, 2, 0, 3)  # [kv, group, T, d]
    scores = q @ k.transpose(1, 2, 0)[:, None] * scale  # [kv, group, T, S]
    query, key = np.arange(start, start + t)[:, None], np.arange(k.shape[0])[None, :]
    visible = key <= query
    if window:
        visible &= query - key < window
    out = softmax(np.where(visible, scores, -np.inf)) @ v.transpose(1, 0, 2)[:, None]  # [kv, group, T, d]
    return out.transpose(2, 0, 1, 3).reshape(t, -1)


class Sequence:
    """Keys and values of one sequence so far: per layer [S, kv heads, head_dim]."""

    def __init__(self, n_layer):
        self.length = 0
        self.k, self.v = [None] * n_layer, [None] * n_layer

    def append(self, layer, k, v):
        if self.k[layer] is not None:
            k, v = np.concatenate([self.k[layer], k]), np.concatenate([self.v[layer], v])
        self.k[layer], self.v[layer] = k, v
        return k, v


class Model:
    """Hyperparameters of one file and its forward pass over any number of independent sequences."""

    def __init__(self, path):
        w = self.w = Weights(path)
        if w.arch not in ("llama", "qwen2", "qwen3", "gemma3"):
            raise ValueError(f"architecture {w.arch}")
        self.n_layer = w.meta("block_count")
        self.dim = w.meta("embedding_length")
        self.n_head = w.meta("attention.head_count")
        self.n_head_kv = w.meta("attention.head_count_kv", self.n_head)
        self.head_dim = w.meta("attention.key_length", self.dim // self.n_head)
        self.eps = w.meta("attention.layer_norm_rms_epsilon")
        self.gemma = w.arch == "gemma3"
        self.window = w.meta("attention.sliding_window", 0) if self.gemma else 0
        self.pattern = w.meta("attention.sliding_window_pattern", 6)
        self.softcap = w.meta("final_logit_softcapping", 0.0)
        per_head = self.dim / self.n_head if self.gemma and self.n_layer == 62 else self.head_dim  # 27B: 168
        self.scale = 1.0 / math.sqrt(per_head)
        n_rot = w.meta("rope.dimension_count", self.head_dim)
        style = "neighbours" if w.arch == "llama" else "halves"
        base = w.meta("rope.freq_base", 10000.0)
        yarn = {"context": w.meta("rope.scaling.original_context_length", w.meta("context_length")),
                "beta_fast": w.meta("rope.scaling.yarn_beta_fast", 32.0),
                "beta_slow": w.meta("rope.scaling.yarn_beta_slow", 1.0),
                "attn_factor": w.meta("rope.scaling.attn_factor", 1.0)}
        factors = w.f64("rope_freqs.weight") if "rope_freqs.weight" in w else None
        factor = w.meta("rope.scaling.factor", w.meta("rope.scale_linear", 1.0))
        self.rope = Rope(n_rot, base, style, w.meta("rope.scaling.type", "linear"), factor, factors, yarn)
        self.rope_local = Rope(n_rot, w.meta("rope.freq_base_swa", 10000.0), style)
        self.embed_scale = math.sqrt(self.dim)
        self.head = "output" if "output.weight" in w else "token_embd"

    def is_local(self, layer):
        """Gemma 3: all but every sixth layer see a window only."""
        return self.window > 0 and (layer + 1) % self.pattern != 0

    def linear(self, name, x):
        y = x @ self.w.f64(name + ".weight").T
        return y + self.w.f64(name + ".bias") if name + ".bias" in self.w else y

    def norm(self, name, x):
        return rms_norm(x, self.w.f64(name + ".weight"), self.eps)

    def embed(self, ids):
        return self.w.f64("token_embd.weight")[ids]

    def attend(self, q, k, v, start, scale, window):
        return attention(q, k, v, start, scale, window)

    def add(self, name, x, y):
        return x + y

    def glu(self, gate, up):
        return (gelu_tanh if self.gemma else silu)(gate) * up

    def block(self, layer, x, sequences, spans, tap):
        """One layer. x: [rows, dim], the new tokens of all sequences one after another; spans: their row ranges."""
        b = f"blk.{layer}."
        rope, window = (self.rope_local, self.window) if self.is_local(layer) else (self.rope, 0)
        h = tap(b + "attn_norm", self.norm(b + "attn_norm", x))
        q = tap(b + "attn_q", self.linear(b + "attn_q", h)).reshape(len(h), self.n_head, self.head_dim)
        k = tap(b + "attn_k", self.linear(b + "attn_k", h)).reshape(len(h), self.n_head_kv, self.head_dim)
        v = tap(b + "attn_v", self.linear(b + "attn_v", h)).reshape(len(h), self.n_head_kv, -1)
        if b + "attn_q_norm.weight" in self.w:
            q = tap(b + "attn_q_norm", self.norm(b + "attn_q_norm", q))
            k = tap(b + "attn_k_norm", self.norm(b + "attn_k_norm", k))
        positions = np.concatenate([np.arange(s.length, s.length + hi - lo) for s, (lo, hi) in zip(sequences, spans)])
        q = tap(b + "q_rope", rope(q, positions))
        k = tap(b + "k_rope", rope(k, positions))
        a = []
        for s, (lo, hi) in zip(sequences, spans):
            keys, values = s.append(layer, k[lo:hi], v[lo:hi])
            a.append(self.attend(q[lo:hi], keys, values, s.length, self.scale, window))
        y = tap(b + "attn_output", self.linear(b + "attn_output", tap(b + "attn", np.concatenate(a))))
        if self.gemma:
            y = tap(b + "post_attention_norm", self.norm(b + "post_attention_norm", y))
        x = tap(b + "attn_out", self.add(b + "attn_out", x, y))
        h = tap(b + "ffn_norm", self.norm(b + "ffn_norm", x))
        gate = tap(b + "ffn_gate", self.linear(b + "ffn_gate", h))
        up = tap(b + "ffn_up", self.linear(b + "ffn_up", h))
        act = tap(b + "ffn_act", self.glu(gate, up))
        y = tap(b + "ffn_down", self.linear(b + "ffn_down", act))
        if self.gemma:
            y = tap(b + "post_ffw_norm", self.norm(b + "post_ffw_norm", y))
        return tap(b + "ffn_out", self.add(b + "ffn_out", x, y))

    def logits(self, x):
        y = self.linear(self.head, x)  # [rows, dim], after the output norm
        return np.tanh(y / self.softcap) * self.softcap if self.softcap else y

    def forward(self, batch, sequences, last_only=False, values=None):
        """Feeds new ids to each sequence; returns one [T, vocab] (or [1, vocab]) array of logits per sequence.

        With `values`, a dict, every intermediate value is put there under its name, rows of all sequences in order.
        """
        def tap(name, value):
            if values is not None:
                values[name] = value
            return value

        ends = np.cumsum([len(ids) for ids in batch])
        spans = [(int(hi) - len(ids), int(hi)) for hi, ids in zip(ends, batch)]
        rows = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in batch])
        x = tap("token_embd", self.embed(rows))
        if self.gemma:
            x = tap("inp_scaled", x * self.embed_scale)
        for layer in range(self.n_layer):
            x = self.block(layer, x, sequences, spans, tap)
        for s, ids in zip(sequences, batch):
            s.length += len(ids)
        if last_only:
            x, spans = x[[hi - 1 for _, hi in spans]], [(i, i + 1) for i in range(len(spans))]
        y = tap("logits", self.logits(tap("output_norm", self.norm("output_norm", x))))
        return [y[lo:hi] for lo, hi in spans]

    def all_logits(self, ids, values=None):
        """Logits of every position of one sequence: [T, vocab] in f64."""
        return self.forward([ids], [Sequence(self.n_layer)], values=values)[0]

    def greedy(self, prompts, n):
        """Continues all prompts side by side with n argmax ids; returns (ids, smallest top-2 margin) for each."""
        sequences = [Sequence(self.n_layer) for _ in prompts]
        ids, margins, feed = [[] for _ in prompts], [math.inf] * len(prompts), prompts
        for _ in range(n):
            step = self.forward(feed, sequences, last_only=True)
            for i, y in enumerate(step):
                first, second = np.argsort(-y[0], kind="stable")[:2]
                ids[i].append(int(first))
                margins[i] = min(margins[i], float(y[0, first] - y[0, second]))
            feed = [[sequence_ids[-1]] for sequence_ids in ids]
        return list(zip(ids, margins))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--greedy", type=int, default=0)
    arguments = parser.parse_args()
    model = Model(arguments.model)
    ids = [int(text) for text in arguments.tokens.split(",")]
    y = model.all_logits(ids)[-1]
    print(" ".join(f"{i}:{y[i]:.10f}" for i in np.argsort(-y, kind="stable")[:arguments.top]))
    if model.w.unused():
        print("unused tensors:", *model.w.unused())
    if arguments.greedy:
        generated, margin = model.greedy([ids], arguments.greedy)[0]
        print(",".join(map(str, generated)), f"smallest margin {margin:.6f}")


if __name__ == "__main__":
    main()
