"""Known bugs for the benchmark of plumb diagnose: what faults.py leaves out, made from the sentences of docs/faults.md.

Names begin with the id of the catalogue. A fault with `values` is a function of a number, drawn by the benchmark. Sources are the
papers of the operations and the issues that `plumb faults show` names; the catalogue's own code has not been looked at.
"""

import math

import numpy as np

import numpy_model as nm
from planting import (ALL, GEMMA, LINEARS, NORMS, change_add, change_attend, change_layers, change_linear, change_names,
                      change_norm, change_weight, general_attention, reread, table, tail, wrap_rope)

MORE = {}
fault = table(MORE)
QKV, GLU = ("attn_q", "attn_k", "attn_v"), ("llama", "qwen2", "qwen3")


def named(*names):
    return lambda n, w: tail(n) in names


def log_range(low, high):
    return lambda rng: float(np.exp(rng.uniform(math.log(low), math.log(high))))


# A. Layout.
fault("A1b all matrices but the head read by columns", LINEARS)(
    change_weight(lambda n, w: n.startswith("blk"), reread))
fault("A5 keys, values, FFN and head read by columns", LINEARS)(
    change_weight(named("attn_k", "attn_v", "ffn_gate", "ffn_up", "ffn_down", "output", "token_embd"), reread))
fault("A5c keys and values read by columns", "attn_k attn_v")(change_weight(named("attn_k", "attn_v"), reread))
fault("A5d attention output read by columns", "attn_output")(change_weight(named("attn_output"), reread))
fault("A5e gate and up read by columns", "ffn_gate ffn_up")(change_weight(named("ffn_gate", "ffn_up"), reread))
fault("A10 first block of each row only", LINEARS)(change_weight(ALL, lambda w, m: w * (np.arange(w.shape[1]) < 32)))
fault("A10b first half of the rows only", LINEARS)(
    change_weight(lambda n, w: n.startswith("blk"), lambda w, m: w * (np.arange(len(w)) < len(w) // 2)[:, None]))
fault("A11 layers sorted as text", "attn_norm", needs=lambda m: m.n_layer > 10)(
    change_layers(lambda i, n: sorted(range(n), key=str)[i]))
fault("A11b layers reversed", "attn_norm")(change_layers(lambda i, n: n - 1 - i))
fault("A11c weights of the next layer", "attn_norm")(change_layers(lambda i, n: (i + 1) % n))
fault("A14 ffn_down of layer 0 is zero", "ffn_down")(change_weight(lambda n, w: n == "blk.0.ffn_down", lambda w, m: 0 * w))
fault("A14c attn_v of layer 1 is zero", "attn_v")(change_weight(lambda n, w: n == "blk.1.attn_v", lambda w, m: 0 * w))


@fault("A12 tied head left zero", "logits", needs=lambda m: m.head == "token_embd")
def zero_head(model):
    right = model.weight
    model.weight = lambda name: 0 * right(name) if name == "token_embd" else right(name)


@fault("A13 embeddings used for a head of its own", "logits", needs=lambda m: m.head == "output")
def wrongly_tied(model):
    model.head = "token_embd"


@fault("A14b norms of odd layers are one", "attn_norm ffn_norm")
def norms_of_odd_layers(model):
    right = model.norm_weight
    model.norm_weight = lambda name: (np.ones_like(right(name)) if name.startswith("blk") and int(name.split(".")[1]) % 2
                                      else right(name))


@fault("A15b keys and values exchanged", "attn_k attn_v")
def exchanged_kv(model):
    swap = {"attn_k": "attn_v", "attn_v": "attn_k"}
    change_names(lambda name, m: name[:-len(tail(name))] + swap.get(tail(name), tail(name)))(model)


@fault("A15c q, k, v split group by group", "attn_q attn_k attn_v", needs=lambda m: m.n_head != m.n_head_kv)
def split_by_groups(model):
    right = model.weight

    def weight(name):
        if tail(name) not in QKV:
            return right(name)
        q, k, v = (right(name[:-len(tail(name))] + which) for which in QKV)
        d, groups = model.head_dim, model.n_head_kv
        rows = np.concatenate([q, k, v]).reshape(groups, -1, d, q.shape[1])  # groups of (queries, key, value)
        cut = {"attn_q": rows[:, :-2], "attn_k": rows[:, -2:-1], "attn_v": rows[:, -1:]}[tail(name)]
        return cut.reshape(-1, q.shape[1])
    model.weight = weight


def skip(layers):
    def plant(model):
        skipped = {i % model.n_layer for i in layers}
        right = model.block
        model.block = lambda layer, x, *rest: x if layer in skipped else right(layer, x, *rest)
    return plant


fault("A17 last layer not run", "output_norm")(skip([-1]))
fault("A17b first layer not run", "attn_norm")(skip([0]))
fault("A17c last two layers not run", "output_norm", needs=lambda m: m.n_layer > 3)(skip([-1, -2]))


# C. Embedding.
@fault("C2b embedding scaled by sqrt(d)", "token_embd", GLU)
def scaled_for_nothing(model):
    right = model.embed
    model.embed = lambda ids: right(ids) * math.sqrt(model.dim)


@fault("C5 sinusoids of the position added", "token_embd")
def sinusoids(model):
    right = model.embed

    def embed(ids):
        x = right(ids)
        angle = model.positions[:, None] / 10000.0**(np.arange(0, x.shape[1], 2) / x.shape[1])
        added = np.zeros_like(x)
        added[:, 0::2], added[:, 1::2] = np.sin(angle), np.cos(angle)
        return x + added
    model.embed = embed


@fault("C6 embedding of the next id", "token_embd")
def next_id(model):
    right = model.embed
    model.embed = lambda ids: right((ids + 1) % len(model.table()))


fault("C4 scaled table used as head", "logits", GEMMA, needs=lambda m: m.head == "token_embd")(
    change_linear(lambda m, n, x, right: right(n, x) * (math.sqrt(m.dim) if n == "token_embd" else 1)))


# D. Norms and residuals.
@fault("D1 another eps", NORMS, values=log_range(1e-4, 5e-2))
def eps(value):
    def plant(model):
        model.eps = value
    return plant


fault("D2 eps outside the root", NORMS)(
    change_norm(None, lambda m, x, w: x / (np.sqrt(np.mean(x * x, -1, keepdims=True)) + m.eps) * w))
fault("D4 mean subtracted", NORMS)(
    change_norm(None, lambda m, x, w: nm.rms_norm(x - x.mean(-1, keepdims=True), w, m.eps)))
fault("D5b mean absolute value", NORMS)(change_norm(None, lambda m, x, w: x / (np.abs(x).mean(-1, keepdims=True) + m.eps) * w))
fault("D5c one rms for all tokens", NORMS)(
    change_norm(None, lambda m, x, w: x / np.sqrt(np.mean(x * x) + m.eps) * w))
fault("D8 weights of all norms twice", NORMS)(change_norm(None, lambda m, x, w: nm.rms_norm(x, w * w, m.eps)))
fault("D9 weights of norms not applied", NORMS)(change_norm(None, lambda m, x, w: nm.rms_norm(x, 1.0, m.eps)))
fault("D10b attn_norm used for both", "ffn_norm")(change_names(lambda n, m: n.replace("ffn_norm", "attn_norm")))
fault("D10c norms of the next layer", "attn_norm ffn_norm")(change_names(
    lambda n, m: f"blk.{(int(n.split('.')[1]) + 1) % m.n_layer}.{tail(n)}" if n.endswith("_norm") and n[:3] == "blk" else n))
fault("D11b norm behind attention missing", "post_attention_norm", GEMMA)(
    change_norm(("post_attention_norm", ), lambda m, x, w: x.copy()))
fault("D11c norm behind the FFN missing", "post_ffw_norm", GEMMA)(change_norm(("post_ffw_norm", ), lambda m, x, w: x.copy()))
fault("D12b last norm twice", "output_norm")(
    change_norm(("output_norm", ), lambda m, x, w: nm.rms_norm(nm.rms_norm(x, w, m.eps), w, m.eps)))
fault("D12c weight of the last norm not applied", "output_norm")(
    change_norm(("output_norm", ), lambda m, x, w: nm.rms_norm(x, 1.0, m.eps)))
fault("D13 residual of attention after the norm", "attn_out")(change_add(("attn_out", ), lambda m, x, y: m.now["attn_norm"] + y))
fault("D13c residual of the FFN after the norm", "ffn_out")(change_add(("ffn_out", ), lambda m, x, y: m.now["ffn_norm"] + y))


@fault("D13b both residuals after the norm", "attn_out ffn_out")
def residuals_after_norms(model):
    MORE["D13 residual of attention after the norm"].plant(model)
    MORE["D13c residual of the FFN after the norm"].plant(model)


fault("D14b residual of the FFN missing", "ffn_out")(change_add(("ffn_out", ), lambda m, x, y: y.copy()))
fault("D14c residual of the FFN from the layer's input", "ffn_out")(change_add(("ffn_out", ), lambda m, x, y: m.input + y))
fault("D14d residual of attention twice", "attn_out")(change_add(("attn_out", ), lambda m, x, y: 2 * x + y))


@fault("D15 stream clipped", "ffn_out", values=log_range(2, 60))
def clipped(limit):
    return change_add(("ffn_out", ), lambda m, x, y: np.clip(x + y, -limit, limit))


@fault("D17 branches multiplied", "attn_output ffn_down", values=lambda rng: float(rng.choice([0.25, 0.4, 0.7, 1.4, 2.5])))
def branches(factor):
    return change_linear(lambda m, n, x, right: right(n, x) * (factor if tail(n) in ("attn_output", "ffn_down") else 1))


# E. Projections and heads.
def change_heads(which, change):
    """change(model, y) of the products `which`, y as [T, heads, head_dim]."""
    return change_linear(lambda m, n, x, right: right(n, x) if tail(n) not in which else
                         change(m, right(n, x).reshape(len(x), -1, m.head_dim)).reshape(len(x), -1))


def inside(m, y):
    return y.reshape(len(y), m.head_dim, -1).swapaxes(1, 2)


def unit(m, y):
    return y / np.sqrt(np.mean(y * y, -1, keepdims=True) + m.eps)


fault("E2b q and k normalised for nothing", "attn_q attn_k", ("llama", "qwen2"))(change_heads(("attn_q", "attn_k"), unit))
fault("E6 all heads read the first kv head", "attn", needs=lambda m: m.n_head_kv > 1)(
    change_attend(lambda m, right, *a: general_attention(*a, head_map=lambda h: 0)))
fault("E6b kv heads reversed", "attn", needs=lambda m: m.n_head_kv > 1)(change_attend(
    lambda m, right, *a: general_attention(*a, head_map=lambda h: m.n_head_kv - 1 - h // (m.n_head // m.n_head_kv))))
fault("E9 heads merged element by element", "attn")(change_attend(
    lambda m, right, q, *rest: right(q, *rest).reshape(len(q), m.n_head, -1).swapaxes(1, 2).reshape(len(q), -1)))
fault("E9b heads merged with the tokens inside", "attn")(change_attend(
    lambda m, right, q, *rest: right(q, *rest).reshape(len(q), m.n_head, -1).swapaxes(0, 1).reshape(len(q), -1)))
fault("E10 one head", "attn", needs=lambda m: m.n_head * m.head_dim == m.dim)(change_attend(
    lambda m, right, q, k, v, start, scale, w: nm.attention(
        q.reshape(len(q), 1, -1), np.repeat(k, m.n_head // m.n_head_kv, 1).reshape(len(k), 1, -1),
        np.repeat(v, m.n_head // m.n_head_kv, 1).reshape(len(v), 1, -1), start, 1 / math.sqrt(m.dim), w)))
fault("E11 heads inside q, k, v", "attn_q attn_k attn_v")(change_heads(QKV, inside))
fault("E11b heads inside q", "attn_q")(change_heads(("attn_q", ), inside))
fault("G16b heads inside v", "attn_v", needs=lambda m: m.n_head_kv > 1)(change_heads(("attn_v", ), inside))


@fault("E4 q and k normalised after the rotation", "attn_q_norm attn_k_norm", ("qwen3", "gemma3"))
def norm_after_rotation(model):
    norm, weights = model.norm, {}

    def keep(name, x):
        if tail(name) in ("attn_q_norm", "attn_k_norm"):
            weights[x.shape[1]] = name
            return x.copy()
        return norm(name, x)
    model.norm = keep
    wrap_rope(lambda m, right, x, positions: norm(weights[x.shape[1]], right(x, positions)))(model)
