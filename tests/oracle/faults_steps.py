"""Known bugs for the benchmark of plumb diagnose, family H and its like: the prompt is right, steps are wrong.

A step is a call of one token behind the prompt. Names begin with the catalogue's id (docs/faults.md).
"""

import numpy as np

import numpy_model as nm
from planting import change_attend, change_norm, general_attention, table, wrap_rope

STEPS = {}
fault = table(STEPS)


def prompts(model):
    """The prompt's length of each sequence, one per row of a step."""
    return np.array([s.prompt for s in model.sequences])


def in_steps(model, right, wrong):
    """right(...) for the prompt, wrong(...) in steps."""
    return lambda *a: wrong(*a) if model.step else right(*a)


def remembering(change):
    """change(sequence, layer, k, v, keys, values) of all kept rows is what steps see."""
    def plant(model):
        right = model.remember

        def remember(sequence, layer, k, v):
            keys, values = right(sequence, layer, k, v)
            return change(sequence, layer, k, v, keys, values) if model.step else (keys, values)
        model.remember = remember
    return plant


def step_positions(change):
    """change(positions, prompts) in steps."""
    return wrap_rope(lambda m, right, x, p: right(x, change(p, prompts(m)) if m.step else p))


fault("H1 steps see the last token only", "attn")(remembering(lambda s, layer, k, v, keys, values: (k, v)))


@fault("H1b steps see the last token only, at position 0", "q_rope k_rope")
def nothing_cached(model):
    STEPS["H1 steps see the last token only"].plant(model)
    step_positions(lambda p, n: 0 * p)(model)


fault("H2 every step overwrites the slot of the first", "attn")(remembering(
    lambda s, layer, k, v, keys, values: tuple(np.concatenate([x[:s.prompt], x[-1:]]) for x in (keys, values))))
fault("H3 an empty slot behind the prompt is seen", "attn")(remembering(
    lambda s, layer, k, v, keys, values: tuple(np.insert(x, s.prompt, 0.0, axis=0) for x in (keys, values))))


def by_heads(x, n):
    part = x[:n]
    return np.concatenate([part.transpose(1, 0, 2).reshape(part.shape), x[n:]])


fault("H4 the prompt's rows lie by heads", "attn", needs=lambda m: m.n_head_kv > 1)(remembering(
    lambda s, layer, k, v, keys, values: (by_heads(keys, s.prompt), by_heads(values, s.prompt))))


@fault("H5b each step is fed the token before", "token_embd")
def step_behind(model):
    model.fed = lambda ids, prompt: [ids[-2]]


@fault("H11 keys kept unrotated, not rotated in steps", "attn", needs=lambda m: m.n_head != m.n_head_kv)
def unrotated_keys(model):
    unrotated = {}

    def keep(m, right, x, positions):
        if x.shape[1] == m.n_head_kv:
            unrotated["k"] = x
        return right(x, positions)
    wrap_rope(keep)(model)
    remember, raw = model.remember, {}

    def seen(sequence, layer, k, v):
        keys, values = remember(sequence, layer, k, v)
        index = next(i for i, s in enumerate(model.sequences) if s is sequence)
        ends = np.cumsum([model.positions.size // len(model.sequences)] * len(model.sequences)) if model.step else spans(model)
        new = model.store(unrotated["k"][ends[index] - len(k):ends[index]])
        key = (id(sequence), layer)
        raw[key] = np.concatenate([raw[key], new]) if key in raw else new
        return (raw[key], values) if model.step else (keys, values)
    model.remember = seen


def spans(model):
    """Where the rows of each sequence end in a call."""
    starts = np.flatnonzero(model.positions == 0)
    return np.append(starts[1:], len(model.positions))


fault("H13 scale of scores missing in steps", "attn")(change_attend(
    lambda m, right, q, k, v, s, scale, w: right(q, k, v, s, 1.0 if m.step else scale, w)))
fault("H13b steps read kv head h mod n_kv", "attn", needs=lambda m: 1 < m.n_head_kv < m.n_head)(change_attend(
    lambda m, right, *a: general_attention(*a, head_map=lambda h: h % m.n_head_kv) if m.step else right(*a)))


@fault("H13c steps rotate in the other style", "q_rope k_rope")
def other_style(model):
    def turn(m, right, x, positions):
        usual = right.style
        right.style = {"halves": "neighbours", "neighbours": "halves"}[usual] if m.step else usual
        y = right(x, positions)
        right.style = usual
        return y
    wrap_rope(turn)(model)


fault("H13d steps do not see their own token", "attn")(change_attend(
    lambda m, right, *a: general_attention(*a, mask=lambda q, k: k < q) if m.step else right(*a)))


@fault("H13e steps have another activation", "ffn_act")
def step_activation(model):
    right = model.glu
    other = nm.silu if model.gemma else nm.gelu_tanh
    model.glu = lambda g, u: other(g) * u if model.step else right(g, u)


fault("H13f steps do not apply the weights of norms", "attn_norm")(change_norm(
    None, lambda m, x, w: nm.rms_norm(x, 1.0 if m.step else w, m.eps)))
fault("F9c positions of steps one too large", "q_rope k_rope")(step_positions(lambda p, n: p + 1))
fault("F16 steps count three padding tokens", "q_rope k_rope")(step_positions(lambda p, n: p + 3))
fault("F10b steps have position 0", "q_rope k_rope")(step_positions(lambda p, n: 0 * p))
fault("F10c positions of steps count from 0", "q_rope k_rope")(step_positions(lambda p, n: p - n))
fault("F10d all steps have the position of the first", "q_rope k_rope")(step_positions(lambda p, n: n))
