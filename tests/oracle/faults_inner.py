"""Known bugs for the benchmark of plumb diagnose, continued: rope, attention, feed-forward part, output, precision.

As faults_more.py: names begin with the catalogue's id, and everything is made from its sentences and from the papers.
"""

import math

import numpy as np

import numpy_model as nm
from arithmetics import bf16, f16, integer_blocks
from faults_more import GLU, log_range
from planting import (GEMMA, LINEARS, change_attend, change_gating, change_glu, change_linear, change_rope, general_attention,
                      table, tail, wrap_rope)

INNER = {}
fault = table(INNER)


# F. Rope and positions.
def base_of(base):
    return lambda r: base**(-2.0 * np.arange(len(r.freq)) / r.n_rot)


@fault("F3 another rope base", "q_rope k_rope", values=lambda rng: float(rng.choice([1000, 20000, 500000, 1e6, 3e7])), archs=GLU)
def other_base(base):
    return change_rope(freq=base_of(base))


fault("F3b rope base 10000", "q_rope k_rope", needs=lambda m: m.w.meta("rope.freq_base", 10000.0) != 10000.0, archs=GLU)(
    change_rope(freq=base_of(10000.0)))


@fault("F5 positions divided", "q_rope k_rope", values=log_range(0.2, 12))
def divided(factor):
    return change_rope(freq=lambda r: r.freq / factor)


@fault("F6 rotation with a magnitude", "q_rope k_rope", values=log_range(1.08, 2))
def magnitude(factor):
    return change_rope(magnitude=lambda r: r.magnitude * factor)


def first_part(share):
    """Only the first share of each head's elements turns, as if n_rot were so much smaller."""
    def turn(m, right, x, positions):
        n, y = int(x.shape[-1] * share), x.copy()
        part = nm.Rope(n, m.w.meta("rope.freq_base", 10000.0), right.style)
        y[..., :n] = part(x[..., :n], positions)
        return y
    return wrap_rope(turn)


fault("F7 half of the elements turn", "q_rope k_rope", archs=GLU)(first_part(1 / 2))
fault("F7b a quarter of the elements turns", "q_rope k_rope", archs=GLU)(first_part(1 / 4))
fault("F8 denominator twice", "q_rope k_rope")(change_rope(freq=lambda r: np.sqrt(r.freq)))


def only(which, change):
    """change(model, right, x, positions) for q or k alone, told apart by the number of heads."""
    return wrap_rope(lambda m, right, x, positions: change(m, right, x, positions)
                     if (x.shape[1] == m.n_head_kv) == (which == "k") else right(x, positions))


def grouped(m):
    return m.n_head != m.n_head_kv


def still(m, right, x, positions):
    return x.copy()


fault("F9b positions of k one too large", "k_rope", needs=grouped)(only("k", lambda m, right, x, p: right(x, p + 1)))
fault("F12 q and k not rotated", "q_rope k_rope")(wrap_rope(still))
fault("F12b k not rotated", "k_rope", needs=grouped)(only("k", still))
fault("F12c q not rotated", "q_rope", needs=grouped)(only("q", still))
fault("F12d v rotated too", "attn_v", GLU)(change_linear(
    lambda m, n, x, right: m.rope(right(n, x).reshape(len(x), -1, m.head_dim), m.positions).reshape(len(x), -1)
    if tail(n) == "attn_v" else right(n, x)))


@fault("F14 angles in bf16", "q_rope k_rope")
def coarse_angles(model):
    for rope in (model.rope, model.rope_local):
        def turn(x, positions, r=rope):
            exact = r.freq
            y = x.copy()
            for t, p in enumerate(positions):
                r.freq = bf16(p * exact)
                y[t:t + 1] = r(x[t:t + 1], np.ones(1))
            r.freq = exact
            return y
        if rope is model.rope:
            model.rope = turn
        else:
            model.rope_local = turn


@fault("F17b window base everywhere", "q_rope k_rope", GEMMA)
def window_base(model):
    model.rope = model.rope_local


@fault("F17c global base everywhere", "q_rope k_rope", GEMMA)
def global_base(model):
    model.rope_local = model.rope


fault("F18 angle of the head", "q_rope k_rope")(wrap_rope(
    lambda m, right, x, p: right(x.swapaxes(0, 1), np.arange(x.shape[1])).swapaxes(0, 1)))
fault("F19 frequencies reversed", "q_rope k_rope")(change_rope(freq=lambda r: r.freq[::-1].copy()))


# G. Attention.
def scores(**parts):
    return change_attend(lambda m, right, *a: general_attention(*a, **parts))


@fault("G2d scores multiplied", "attn", values=lambda rng: float(rng.choice([0.3, 0.6, 1.7, 3.0, 5.0])))
def multiplied(factor):
    return change_attend(lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, scale * factor, w))


fault("G2c scale of twice the head", "attn")(
    change_attend(lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, 1 / math.sqrt(2 * m.head_dim), w)))
fault("G4b keys by h mod n_kv", "attn", needs=lambda m: 1 < m.n_head_kv < m.n_head)(change_attend(
    lambda m, right, *a: general_attention(*a, head_map=lambda h: h % m.n_head_kv, v_map=lambda h: h // (m.n_head // m.n_head_kv))))
fault("G4c values by h mod n_kv", "attn", needs=lambda m: 1 < m.n_head_kv < m.n_head)(
    change_attend(lambda m, right, *a: general_attention(*a, v_map=lambda h: h % m.n_head_kv)))


@fault("G5 keys and values repeated along the tokens", "attn", needs=lambda m: 1 < m.n_head_kv < m.n_head)
def repeated_along_tokens(model):
    right, group = model.attend, model.n_head // model.n_head_kv

    def attend(q, k, v, *rest):
        k, v = (np.tile(x, (group, 1, 1)).reshape(len(x), -1, x.shape[2]) for x in (k, v))
        return right(q, k, v, *rest)
    model.attend = attend


fault("G7 self not seen", "attn")(scores(mask=lambda q, k: k < q))
fault("G7b next token seen", "attn")(scores(mask=lambda q, k: k <= q + 1))
fault("G7c only later tokens seen", "attn")(scores(mask=lambda q, k: k >= q))


@fault("G8b window for nothing", "attn", values=lambda rng: int(rng.integers(3, 13)), archs=GLU)
def window(size):
    return change_attend(lambda m, right, q, k, v, s, scale, _: right(q, k, v, s, scale, size))


@fault("G11 scores soft-capped", "attn", values=log_range(1, 15))
def capped(cap):
    return scores(scores=lambda s: cap * np.tanh(s / cap))


fault("G12b softmax over heads", "attn")(scores(axis=0))
fault("G13 masked scores are 0", "attn")(scores(masked=0.0))


@fault("G13b mask too weak", "attn", values=log_range(1, 6))
def weak_mask(drop):
    return scores(masked=lambda s, visible: np.where(visible, s, s - drop))


fault("G13c mask after the softmax", "attn")(scores(masked=lambda s, visible: s, weights=lambda p, visible: p * visible))
fault("G14 a sink of score 0", "attn")(
    scores(normal=lambda s, e: e / (e.sum(-1, keepdims=True) + np.exp(-s.max(-1, keepdims=True)))))
fault("G16 values stored transposed", "attn")(change_attend(
    lambda m, right, q, k, v, *rest: right(q, k, v.transpose(1, 2, 0).reshape(v.shape), *rest)))


# I. Feed-forward part.
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def erf(x):
    return np.vectorize(math.erf)(x)


def change_act(name, function, archs=()):
    fault(name, "ffn_act", archs)(change_glu(lambda g, u: function(g) * u))


change_act("I3c ReLU", lambda g: np.maximum(g, 0))
change_act("I3d sigmoid", sigmoid)
change_act("I3e no activation", lambda g: g)
change_act("I3g quick GELU for SiLU", lambda g: g * sigmoid(1.702 * g), GLU)
change_act("I3f GELU by erf for SiLU", lambda g: 0.5 * g * (1 + erf(g / math.sqrt(2))), GLU)


def glu(name, change):
    fault(name, "ffn_act")(change_gating(change))


glu("I5b up only", lambda a, g, u: a(u))
glu("I5c gate added", lambda a, g, u: a(g) + u)
glu("I5d activation of both", lambda a, g, u: a(g) * a(u))


def change_ffn_input(source):
    return change_linear(lambda m, n, x, right: right(n, m.now[source] if tail(n) in ("ffn_gate", "ffn_up") else x))


fault("I6 FFN of the stream", "ffn_gate ffn_up")(change_ffn_input("attn_out"))
fault("I6c FFN of what attention got", "ffn_gate ffn_up")(change_ffn_input("attn_norm"))


@fault("I6b FFN of the stream before attention", "ffn_norm")
def before_attention(model):
    right = model.norm
    model.norm = lambda name, x: right(name, model.input if tail(name) == "ffn_norm" else x)


# J. Output.
def change_logits(change):
    def plant(model):
        right = model.logits
        model.logits = lambda x: change(right(x))
    return plant


@fault("J1 logits soft-capped", "logits", values=log_range(3, 40))
def logits_capped(cap):
    return change_logits(lambda y: cap * np.tanh(y / cap))


fault("J2b logits of the first token", "logits")(change_logits(lambda y: np.repeat(y[:1], len(y), 0)))
fault("J3 ids shifted", "logits")(change_logits(lambda y: np.roll(y, 1, -1)))
fault("J3b ids shifted back", "logits")(change_logits(lambda y: np.roll(y, -1, -1)))


@fault("J4 logits multiplied", "logits", values=log_range(0.05, 12))
def logits_multiplied(factor):
    return change_logits(lambda y: y * factor)


# L, M. Sampling, precision.
@fault("L3 repetition penalty of 1.1", "")
def penalty(model):
    def choose(y, ids):
        y, seen = y.copy(), np.unique(ids)
        y[seen] = np.where(y[seen] > 0, y[seen] / 1.1, y[seen] * 1.1)
        return int(np.argmax(y))
    model.choose = choose


@fault("M2c activations of 4 bits", LINEARS)
def four_bits(model):
    model.act = lambda x: integer_blocks(x, 32, 7)


@fault("H9 cache of 4 bits", "attn")
def four_bit_cache(model):
    model.store = lambda x: integer_blocks(x, 32, 7)


@fault("G15 scores in f16 before the scale", "attn")
def f16_scores(model):
    model.attend = lambda q, k, v, start, scale, window: general_attention(q, k, v, start, 1.0, window, scores=lambda s: f16(s) * scale)
