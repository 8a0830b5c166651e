"""Plausible bugs that the catalogue of faults does not have: what plumb diagnose must answer with "unknown".

None of them is the same as, or a case of, an entry of `plumb faults list`. They were written from experience with kernels and
loaders, and the catalogue was read only to leave out what it has.
"""

import math

import numpy as np

import numpy_model as nm
from planting import (change_add, change_attend, change_glu, change_linear, change_names, change_norm, change_rope, change_weight,
                      general_attention, table, tail, wrap_rope)

OUTSIDE = {}
fault = table(OUTSIDE)


def by_value(change):
    """change(attention's result as [T, heads, head_dim])."""
    return change_attend(lambda m, right, q, *rest: change(m, right(q, *rest).reshape(len(q), m.n_head, -1)).reshape(len(q), -1))


def without_last_head(m, y):
    y = y.copy()
    y[:, -1] = 0
    return y


def scored(change):
    """change(model, scores, query positions, key positions)."""
    return change_attend(lambda m, right, q, k, *rest: general_attention(
        q, k, *rest, scores=lambda s: change(m, s, np.arange(len(k) - len(q), len(k))[:, None], np.arange(len(k))[None, :])))


fault("O1 the loop over heads ends one early", "attn")(by_value(without_last_head))
fault("O2 heads shifted by one", "attn")(by_value(lambda m, y: np.roll(y, 1, axis=1)))
fault("O3 keys beyond a multiple of eight are dropped", "attn")(change_attend(lambda m, right, *a: general_attention(
    *a, weights=lambda p, visible: p * (np.arange(p.shape[-1]) < max(1, p.shape[-1] // 8 * 8)))))
fault("O4 the last 32 columns of each product are dropped", "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down")(
    change_weight(lambda n, w: n.startswith("blk"), lambda w, m: w * (np.arange(w.shape[1]) < w.shape[1] - 32)))
fault("O5 gate and up clamped to 1.5", "ffn_act")(change_glu(lambda g, u: nm.silu(np.minimum(g, 1.5)) * np.clip(u, -1.5, 1.5)))
fault("O6 hard swish", "ffn_act")(change_glu(lambda g, u: g * np.clip(g + 3, 0, 6) / 6 * u))
fault("O7 Mish", "ffn_act")(change_glu(lambda g, u: g * np.tanh(np.logaddexp(0, g)) * u))


@fault("O8 both terms of the rotation added", "q_rope k_rope")
def reflected(model):
    def turn(m, right, x, positions):
        y, halves = x.copy(), x.shape[-1] // 2
        i = (slice(0, halves), slice(halves, None)) if m.rope_style == "halves" else (slice(0, None, 2), slice(1, None, 2))
        angle = positions[:, None] * m.rope_freq[None, :]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., i[0]], x[..., i[1]]
        y[..., i[0]], y[..., i[1]] = a * cos + b * sin, b * cos + a * sin
        return y
    model.rope_style, model.rope_freq = model.rope.style, model.rope.freq
    wrap_rope(turn)(model)


fault("O9 every second pair of the rotation is left out", "q_rope k_rope")(
    change_rope(freq=lambda r: r.freq * (np.arange(len(r.freq)) % 2 == 0)))
fault("O10 ALiBi besides the rotation", "attn")(scored(
    lambda m, s, q, k: s - 2.0**(-8.0 * (1 + np.arange(len(s))) / len(s))[:, None, None] * (q - k)))
fault("O11 stream divided by sqrt(2) at each addition", "attn_out ffn_out")(
    change_add(("attn_out", "ffn_out"), lambda m, x, y: (x + y) / math.sqrt(2)))


@fault("O12 embedding normalised", "token_embd")
def normed_embedding(model):
    right = model.embed

    def embed(ids):
        x = right(ids)
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True))
    model.embed = embed


fault("O13 mean of squares over the first half of the width", "attn_norm ffn_norm output_norm")(change_norm(
    None, lambda m, x, w: x / np.sqrt(np.mean(x[..., :x.shape[-1] // 2]**2, -1, keepdims=True) + m.eps) * w))


def by_blocks(m, x, w):
    y = x.reshape(*x.shape[:-1], -1, 32)
    return (y / np.sqrt(np.mean(y * y, -1, keepdims=True) + m.eps)).reshape(x.shape) * w


fault("O14 norms over blocks of 32", "attn_norm ffn_norm output_norm")(change_norm(None, by_blocks))
fault("O15 root of the norm missing", "attn_norm ffn_norm output_norm")(
    change_norm(None, lambda m, x, w: x / (np.mean(x * x, -1, keepdims=True) + m.eps) * w))
fault("O16 norms of layer 0 in all layers", "attn_norm ffn_norm", needs=lambda m: m.n_layer > 2)(change_names(
    lambda n, m: "blk.0." + tail(n) if n.startswith("blk") and n.endswith("_norm") else n))
fault("O17 gate of the layer before", "ffn_gate", needs=lambda m: m.n_layer > 2)(change_names(
    lambda n, m: f"blk.{(int(n.split('.')[1]) - 1) % m.n_layer}.ffn_gate" if tail(n) == "ffn_gate" else n))
fault("O18 scores scaled by the logarithm of the length", "attn")(scored(lambda m, s, q, k: s * np.log(1 + np.maximum(q, 1))))
fault("O19 kv heads off by one", "attn", needs=lambda m: m.n_head_kv > 1)(change_attend(lambda m, right, *a: general_attention(
    *a, head_map=lambda h: (h // (m.n_head // m.n_head_kv) + 1) % m.n_head_kv)))
fault("O20 the first token is masked as padding", "attn")(change_attend(lambda m, right, *a: general_attention(
    *a, mask=lambda q, k: (k <= q) & ((k > 0) | (q == 0)))))
fault("O21 attention within chunks of eight", "attn")(change_attend(lambda m, right, *a: general_attention(
    *a, mask=lambda q, k: (k <= q) & (k // 8 == q // 8))))
fault("O22 scale missing in odd layers", "attn")(change_attend(
    lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, 1.0 if m.layer % 2 else scale, w)))


@fault("O23 one layer runs twice", "attn_norm", needs=lambda m: m.n_layer > 4)
def twice(model):
    right = model.block

    def block(layer, x, sequences, spans, tap):
        if layer == model.n_layer // 3:
            saved = [(s.k[layer], s.v[layer]) for s in sequences]
            x = right(layer, x, sequences, spans, lambda name, value: value)
            for s, (k, v) in zip(sequences, saved):
                s.k[layer], s.v[layer] = k, v
        return right(layer, x, sequences, spans, tap)
    model.block = block


fault("O24 values normalised", "attn_v")(change_linear(lambda m, n, x, right: right(n, x) if tail(n) != "attn_v" else (
    lambda y: (y / np.sqrt(np.mean(y * y, -1, keepdims=True) + m.eps)).reshape(len(x), -1))(
        right(n, x).reshape(len(x), -1, m.head_dim))))


@fault("O25 dropout left on", "ffn_act")
def dropout(model):
    right, rng = model.glu, np.random.default_rng(7)
    model.glu = lambda g, u: right(g, u) * (rng.random(g.shape) > 0.1) / 0.9


@fault("O26 32 rows of one matrix are rubbish", "ffn_up")
def rubbish(model):
    def change(w, _):
        w, rng = w.copy(), np.random.default_rng(3)
        w[64:96] = rng.standard_normal((32, w.shape[1])) * 8 * w.std()
        return w
    change_weight(lambda n, w: n == f"blk.{model.n_layer // 2}.ffn_up", change)(model)


fault("O27 rows of two tokens exchanged behind attention", "attn")(change_attend(
    lambda m, right, q, *rest: right(q, *rest)[[*range(len(q) - 3), *([len(q) - 1, len(q) - 2, len(q) - 3])]]
    if len(q) > 4 else right(q, *rest)))
fault("O28 FFN of odd layers not run", "ffn_out")(change_add(("ffn_out", ), lambda m, x, y: x.copy() if m.layer % 2 else x + y))
fault("O29 attention output by columns in the last third of the layers", "attn_output",
      needs=lambda m: m.n_layer > 4 and m.n_head * m.head_dim == m.dim)(change_weight(
          lambda n, w: tail(n) == "attn_output" and n.startswith("blk.2"), lambda w, m: w.T))
fault("O30 output matrix of attention ignored", "attn_output", needs=lambda m: m.n_head * m.head_dim == m.dim)(
    change_linear(lambda m, n, x, right: x.copy() if tail(n) == "attn_output" else right(n, x)))
