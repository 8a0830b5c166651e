"""Known bugs of inference engines, planted into the NumPy oracle: those that every run of a prompt shows.

`kinds` are the operations that a fault makes wrong: what a replay of recorded inputs must mark, and nothing else. Ids are those
of docs/faults.md where the catalogue has the fault; the benchmark's answers are in bench/plumbbench/answers.py.
"""

import math

import numpy as np

import numpy_model as nm
from planting import (ALL, GEMMA, LLAMA, LINEARS, NORMS, Faulty, change_attend, change_gating, change_glu, change_linear, change_norm,  # noqa: F401
                      change_positions, change_rope, change_weight, general_attention, reread, table, tail)

FAULTS = {}
fault = table(FAULTS)

# A. Layout.
fault("A1 all matrices read by columns", LINEARS)(change_weight(ALL, reread))
fault("A2 square matrices read by columns", "attn_q attn_output",
      needs=lambda m: m.n_head * m.head_dim == m.dim)(change_weight(lambda n, w: w.shape[0] == w.shape[1] , reread))
fault("A4 head read by columns", "logits")(change_weight(lambda n, w: tail(n) in ("output", "token_embd"), reread))
fault("A5 only some matrices read by columns", "ffn_down")(change_weight(lambda n, w: tail(n) == "ffn_down", reread))


@fault("A3 embedding read by columns", "token_embd")
def embedding_by_columns(model):
    right = model.table
    model.table = lambda: reread(right(), model)


@fault("A11 layers 0 and 1 exchange their feed-forward weights", "ffn_gate ffn_up ffn_down", layers={0, 1},
       needs=lambda m: m.n_layer > 1)
def exchanged_layers(model):
    right, swap = model.linear, {"0": "1", "1": "0"}

    def linear(name, x):
        parts = name.split(".")
        if len(parts) == 3 and parts[1] in swap and parts[2].startswith("ffn"):
            name = f"blk.{swap[parts[1]]}.{parts[2]}"
        return right(name, x)
    model.linear = linear


fault("A10 only the first half of a matrix decoded", "attn_v")(
    change_weight(lambda n, w: tail(n) == "attn_v", lambda w, m: np.concatenate([w[:len(w) // 2], 0 * w[len(w) // 2:]])))
fault("A14 one tensor is zero", "ffn_up", layers={1}, needs=lambda m: m.n_layer > 1)(
    change_weight(lambda n, w: n == "blk.1.ffn_up", lambda w, m: 0 * w))


@fault("A15 fused gate and up split by halves of rows", "ffn_gate ffn_up")
def split_by_rows(model):
    right = model.weight

    def weight(name):
        which = tail(name)
        if which not in ("ffn_gate", "ffn_up"):
            return right(name)
        both = [right(name[:-len(which)] + part) for part in ("ffn_gate", "ffn_up")]
        return np.concatenate(both)[int(which == "ffn_up")::2]
    model.weight = weight


# B. Decoding, as it looks in the decoded matrix.
fault("B2 offset of the codes missing", "attn_q")(
    change_weight(lambda n, w: tail(n) == "attn_q", lambda w, m: w + 0.5 * np.abs(w).max()))
fault("B3 minimum ignored", "ffn_down")(
    change_weight(lambda n, w: tail(n) == "ffn_down",
                  lambda w, m: w - np.repeat(w.reshape(len(w), -1, 32).min(-1), 32, axis=-1).reshape(w.shape)))
fault("B1 halves of each block interleaved", "attn_k")(
    change_weight(lambda n, w: tail(n) == "attn_k",
                  lambda w, m: w.reshape(len(w), -1, 2, 16).transpose(0, 1, 3, 2).reshape(w.shape)))
fault("B8 codes unsigned", "attn_v")(change_weight(lambda n, w: tail(n) == "attn_v", lambda w, m: np.abs(w)))
fault("B16 only 32 of each 128 elements decoded", "ffn_up", needs=lambda m: m.dim % 64 == 0)(
    change_weight(lambda n, w: tail(n) == "ffn_up",
                  lambda w, m: (w.reshape(len(w), -1, 64) * (np.arange(64) < 16)).reshape(w.shape)))


# C. Embedding.
@fault("C1 sqrt(d) missing", "inp_scaled", GEMMA)
def unscaled(model):
    model.embed_scale = 1.0


@fault("C2 scaled twice", "inp_scaled", GEMMA)
def scaled_twice(model):
    model.embed_scale = model.dim


@fault("C5 absolute positions added", "token_embd")
def absolute_positions(model):
    right = model.embed

    def embed(ids):
        x = right(ids)
        angle = np.arange(len(ids))[:, None] * 10000.0**(-np.arange(x.shape[1]) / x.shape[1])
        return x + np.sin(angle) * np.sqrt(np.mean(x * x))
    model.embed = embed


# D. Norms and residuals.
@fault("D1 eps is 0.3", NORMS)
def wrong_eps(model):
    model.eps = 0.3


fault("D2 eps outside the root", NORMS)(
    change_norm(None, lambda m, x, w: x / (np.sqrt(np.mean(x * x, -1, keepdims=True)) + 0.05) * w))
fault("D3 multiplied by the root", NORMS)(
    change_norm(None, lambda m, x, w: x * np.sqrt(np.mean(x * x, -1, keepdims=True) + m.eps) * w))
fault("D4 LayerNorm", "attn_norm ffn_norm output_norm")(
    change_norm(("attn_norm", "ffn_norm", "output_norm"), lambda m, x, w: nm.rms_norm(x - x.mean(-1, keepdims=True), w, m.eps)))
fault("D5 sum for mean", NORMS)(change_norm(None, lambda m, x, w: nm.rms_norm(x, w, m.eps / x.shape[-1]) / math.sqrt(x.shape[-1])))
fault("D6 the 1 of (1 + w) missing", NORMS, GEMMA)(change_norm(None, lambda m, x, w: nm.rms_norm(x, w - 1, m.eps)))
fault("D7 1 added to the weight", NORMS)(change_norm(None, lambda m, x, w: nm.rms_norm(x, w + 1, m.eps)))
fault("D8 weight applied twice", "attn_norm ffn_norm")(
    change_norm(("attn_norm", "ffn_norm"), lambda m, x, w: nm.rms_norm(x, w * w, m.eps)))
fault("D9 weight of ffn_norm not applied", "ffn_norm")(change_norm(("ffn_norm", ), lambda m, x, w: nm.rms_norm(x, 1.0, m.eps)))


@fault("D10 weights of attn_norm and ffn_norm exchanged", "attn_norm ffn_norm")
def exchanged_norms(model):
    right, swap = model.norm, {"attn_norm": "ffn_norm", "ffn_norm": "attn_norm"}
    model.norm = lambda name, x: right(name[:-len(tail(name))] + swap.get(tail(name), tail(name)), x)


fault("D11 norms after the branches missing", "post_attention_norm post_ffw_norm", GEMMA)(
    change_norm(("post_attention_norm", "post_ffw_norm"), lambda m, x, w: x.copy()))
fault("D12 last norm missing", "output_norm")(change_norm(("output_norm", ), lambda m, x, w: x.copy()))


@fault("D14 residual of attention missing", "attn_out")
def without_residual(model):
    right = model.add
    model.add = lambda name, x, y: y.copy() if tail(name) == "attn_out" else right(name, x, y)


@fault("D14 residual added twice", "ffn_out")
def residual_twice(model):
    right = model.add
    model.add = lambda name, x, y: 2 * x + y if tail(name) == "ffn_out" else right(name, x, y)


@fault("D15 stream clipped", "ffn_out")
def clipped(model):
    right = model.add

    def add(name, x, y):
        z = right(name, x, y)
        return np.clip(z, *(np.quantile(z, [0.1, 0.9]))) if tail(name) == "ffn_out" else z
    model.add = add


# E. Projections and heads.
@fault("E1 biases of q, k, v ignored", "attn_q attn_k attn_v", ("qwen2", ))
def without_biases(model):
    model.bias = lambda name: None


fault("E2 norm of q and k missing", "attn_q_norm attn_k_norm", ("qwen3", "gemma3"))(
    change_norm(("attn_q_norm", "attn_k_norm"), lambda m, x, w: x.copy()))
fault("E3 norm of q and k over the whole projection", "attn_q_norm attn_k_norm", ("qwen3", "gemma3"))(
    change_norm(("attn_q_norm", "attn_k_norm"),
                lambda m, x, w: x / np.sqrt(np.mean(x * x, axis=(-2, -1), keepdims=True) + m.eps) * w))
# What converters and loaders do with rows of q and k: [heads, 2, dim / 2] become [heads, dim / 2, 2], and back.
def permuted(w, heads):
    return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def restored(w, heads):
    return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def other_kv_heads(model):
    return model.n_head != model.n_head_kv and model.n_head_kv * model.head_dim % (2 * model.n_head) == 0


fault("E8 rows of k permuted by the heads of q", "attn_k", LLAMA, needs=other_kv_heads)(  # llama.cpp#3018: the converter
    change_weight(lambda n, w: tail(n) == "attn_k", lambda w, m: permuted(restored(w, m.n_head_kv), m.n_head)))


fault("E9 heads merged in reverse order", "attn")(change_attend(
    lambda m, right, q, *rest: right(q, *rest).reshape(len(q), m.n_head, -1)[:, ::-1].reshape(len(q), -1)))

# F. Rope and positions.
fault("F1 other pairs are rotated", "q_rope k_rope")(
    change_rope(style=lambda r: "halves" if r.style == "neighbours" else "neighbours"))
fault("F3 rope base 50 times larger", "q_rope k_rope")(
    change_rope(freq=lambda r: r.freq**(math.log(1) + 1) * 50.0**(-2.0 * np.arange(len(r.freq)) / r.n_rot)))
fault("F5 positions stretched by 2", "q_rope k_rope")(change_rope(freq=lambda r: r.freq / 2))
fault("F6 magnitude of the rotation", "q_rope k_rope")(change_rope(magnitude=lambda r: r.magnitude * 1.1))
fault("F9 positions from 1", "q_rope k_rope")(change_positions(lambda p: p + 1))
fault("F10 position constant", "q_rope k_rope")(change_positions(lambda p: 0 * p))
fault("F13 rotated the other way", "q_rope k_rope")(change_rope(freq=lambda r: -r.freq))


@fault("F7 only half of the pairs are rotated", "q_rope k_rope")
def partial_rotation(model):
    for rope in {id(r): r for r in (model.rope, model.rope_local)}.values():
        rope.freq = np.where(np.arange(len(rope.freq)) < len(rope.freq) // 2, rope.freq, 0.0)


@fault("F11 rotated twice", "q_rope k_rope")
def rotated_twice(model):
    def wrap(right):
        return lambda x, positions: right(right(x, positions), positions)
    model.rope, model.rope_local = wrap(model.rope), wrap(model.rope_local)


@fault("F12 rotation of k missing", "k_rope", needs=lambda m: m.n_head != m.n_head_kv)
def keys_not_rotated(model):
    def wrap(right):
        return lambda x, positions: x.copy() if x.shape[1] == model.n_head_kv else right(x, positions)
    model.rope, model.rope_local = wrap(model.rope), wrap(model.rope_local)


@fault("F17 local and global base exchanged", "q_rope k_rope", GEMMA)
def exchanged_bases(model):
    model.rope, model.rope_local = model.rope_local, model.rope


# G. Attention.
fault("G1 scale missing", "attn")(change_attend(lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, 1.0, w)))
fault("G2 scale of another width", "attn")(
    change_attend(lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, 1 / math.sqrt(m.dim), w)))
fault("G3 scaled twice", "attn")(change_attend(lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, scale * scale, w)))
fault("G4 heads share keys by h mod n_kv", "attn", needs=lambda m: 1 < m.n_head_kv < m.n_head)(
    change_attend(lambda m, right, *a: general_attention(*a, head_map=lambda h: h % m.n_head_kv)))
fault("G6 no causal mask", "attn")(
    change_attend(lambda m, right, *a: general_attention(*a, mask=lambda q, k: k < 1 << 30)))
fault("G7 the next token is seen", "attn")(
    change_attend(lambda m, right, *a: general_attention(*a, mask=lambda q, k: k <= q + 1)))
fault("G8 window of 4 tokens", "attn")(change_attend(lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, scale, 4)))
fault("G11 soft-cap of scores", "attn")(change_attend(
    lambda m, right, q, k, v, s, scale, w: general_attention(q, k, v, s, scale, w, weights=lambda p, _: p**2)))
fault("G12 softmax over queries", "attn")(change_attend(lambda m, right, *a: general_attention(*a, axis=-2)))


# I. Feed-forward part.
@fault("I1 gate and up exchanged", "ffn_gate ffn_up")
def exchanged_gate(model):
    right, swap = model.linear, {"ffn_gate": "ffn_up", "ffn_up": "ffn_gate"}
    model.linear = lambda name, x: right(name[:-len(tail(name))] + swap[tail(name)] if tail(name) in swap else name, x)


fault("I1 activation on the wrong side", "ffn_act", archs=("llama", "qwen2", "qwen3"))(change_glu(lambda g, u: g * nm.silu(u)))
fault("I2 activation of the product", "ffn_act", archs=("llama", "qwen2", "qwen3"))(change_glu(lambda g, u: nm.silu(g * u)))
fault("I3 GELU for SiLU", "ffn_act", archs=("llama", "qwen2", "qwen3"))(change_glu(lambda g, u: nm.gelu_tanh(g) * u))
fault("I3 SiLU for GELU", "ffn_act", GEMMA)(change_glu(lambda g, u: nm.silu(g) * u))
fault("I4 quick GELU", "ffn_act", GEMMA)(change_glu(lambda g, u: g / (1 + np.exp(-1.702 * g)) * u))
fault("I5 no gating", "ffn_act")(change_gating(lambda a, g, u: a(g)))


# J. Output.
@fault("J2 logits of the row before", "logits")
def row_before(model):
    right = model.logits
    model.logits = lambda x: np.roll(right(x), 1, axis=0)


@fault("J4 logits scaled", "logits")
def logits_scaled(model):
    right = model.logits
    model.logits = lambda x: right(x) * 0.25
