"""How a bug is planted into the NumPy oracle: a model whose parts can be replaced, and the usual replacements.

A fault is a function that changes a Faulty model before it runs: a weight as it is read, an operation, a residual, what the
cache keeps, what a step is fed. Replacements wrap what they find, so that several faults can be planted at once.
"""

import copy

import numpy as np

import numpy_model as nm
from arithmetics import ACTIVATIONS, ARITHMETICS, CACHES

NORMS = "attn_norm ffn_norm output_norm attn_q_norm attn_k_norm post_attention_norm post_ffw_norm"
LINEARS = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down logits"
GEMMA, LLAMA = ("gemma3",), ("llama",)


class Fault:
    """kinds: operations made wrong; layers: of those, where not all; values: draws the number of a fault that has one."""

    def __init__(self, name, plant, kinds, archs=(), needs=lambda model: True, layers=None, values=None):
        self.name, self.plant, self.kinds, self.archs, self.needs = name, plant, set(kinds.split()), archs, needs
        self.layers, self.values = layers, values

    def fits(self, model):
        return (not self.archs or model.w.arch in self.archs) and bool(self.needs(model))


def table(into):
    """The decorator that keeps a function which plants a fault under its name."""
    def fault(name, kinds, archs=(), needs=lambda model: True, layers=None, values=None):
        def keep(plant):
            assert name not in into, name
            into[name] = Fault(name, plant, kinds, archs, needs, layers, values)
            return plant
        return keep
    return fault


class Cache(nm.Sequence):
    """The keys and values of one sequence, in the type of the model's cache; the model decides what is kept and seen."""

    def __init__(self, model):
        super().__init__(model.n_layer)
        self.model, self.prompt = model, None

    def append(self, layer, k, v):
        return self.model.remember(self, layer, self.model.store(k), self.model.store(v))


class Faulty(nm.Model):
    """A model with faults, in one of the arithmetics. `like`: another of the same file, whose weights are used."""

    def __init__(self, path, plants=(), arithmetic="f64", like=None):
        if like is None:
            super().__init__(path)
            self.right = dict(self.__dict__)
        else:
            self.__dict__.update(like.right, right=like.right)
        self.rope, self.rope_local = copy.copy(self.rope), copy.copy(self.rope_local)
        self.arithmetic, self.act, self.store = ARITHMETICS[arithmetic], ACTIVATIONS[arithmetic], CACHES[arithmetic]
        self.layer, self.sequences, self.step, self.now = 0, [], False, {}
        for plant in plants:
            plant(self)

    # What faults replace, beside embed, attend, add, glu, logits of the model.

    def weight(self, name):
        return self.w.f64(name + ".weight")

    def bias(self, name):
        return self.w.f64(name + ".bias") if name + ".bias" in self.w else None

    def norm_weight(self, name):
        return self.w.f64(name + ".weight")

    def table(self):
        return self.w.f64("token_embd.weight")

    def remember(self, sequence, layer, k, v):
        """Keeps new rows; returns the keys and values that attention sees."""
        return nm.Sequence.append(sequence, layer, k, v)

    def choose(self, y, ids):
        return int(np.argmax(y))

    def fed(self, ids, prompt):
        """What the next call is fed, of all ids so far."""
        return [ids[-1]]

    def linear(self, name, x):
        y, b = self.act(x) @ self.weight(name).T, self.bias(name)
        return y if b is None else y + b

    def norm(self, name, x):
        return nm.rms_norm(x, self.norm_weight(name), self.eps)

    def embed(self, ids):
        return self.table()[ids]

    def attend(self, q, k, v, start, scale, window):
        """As the model's; a faulty cache may show fewer or more rows than there were tokens."""
        return nm.attention(q, k, v, len(k) - len(q), scale, window)

    def block(self, layer, x, sequences, spans, tap):
        """As the model's, but what a tap rounds is what the next operation reads."""
        self.layer, self.sequences, self.input = layer, sequences, x
        return super().block(layer, x, sequences, spans, tap)

    def forward(self, batch, sequences, last_only=False, values=None):
        self.step = all(s.length > 0 for s in sequences)
        self.positions = np.concatenate([s.length + np.arange(len(ids)) for s, ids in zip(sequences, batch)])
        for s, ids in zip(sequences, batch):
            s.prompt = len(ids) if s.length == 0 else s.prompt
        with np.errstate(all="ignore"):
            return super().forward(batch, sequences, last_only, values if values is not None else Tap(self, {}))

    def values(self, ids, calls=None):
        """Every value of one sequence by name, cut into calls of those lengths."""
        out, sequence, at = {}, Cache(self), 0
        for n in calls or [len(ids)]:
            part, new = {}, ids[at:at + n] if at == 0 else self.fed(ids[:at + n], sequence.prompt) if n == 1 else ids[at:at + n]
            self.forward([new], [sequence], values=Tap(self, part))
            for name, value in part.items():
                out.setdefault(name, []).append(value.reshape(len(value), -1))
            at += n
        return {name: np.concatenate(parts) for name, parts in out.items()}

    def generate(self, prompts, n):
        """Continues all prompts side by side with n chosen ids; returns (ids, rows of logits) for each."""
        sequences, ids = [Cache(self) for _ in prompts], [list(p) for p in prompts]
        rows, feed = [[] for _ in prompts], ids
        for _ in range(n):
            for i, y in enumerate(self.forward(feed, sequences, last_only=True)):
                rows[i].append(y[0])
                ids[i].append(self.choose(y[0], ids[i]))
            feed = [self.fed(i, len(p)) for i, p in zip(ids, prompts)]
        return [(i[len(p):], r) for i, p, r in zip(ids, prompts, rows)]

    def heads(self):
        kv = dict.fromkeys(("attn_k", "k_rope", "attn_v", "attn_k_norm"), self.n_head_kv)
        return dict.fromkeys(("attn_q", "q_rope", "attn_q_norm"), self.n_head) | kv


class Tap(dict):
    """Receives values; rounds them in place, so that what follows reads what was recorded. model.now has those of this layer."""

    def __init__(self, model, into):
        super().__init__()
        self.model, self.into = model, into
        model.now = {}

    def __setitem__(self, name, value):
        if self.model.arithmetic is not None and value.dtype == np.float64:
            value[...] = self.model.arithmetic(value)
        self.model.now[tail(name)] = value
        self.into[name] = value.copy()


def tail(name):
    return name.rsplit(".", 1)[-1]


def change_linear(change):
    """change(model, name, x, right) in the place of every matrix product."""
    def plant(model):
        right = model.linear
        model.linear = lambda name, x: change(model, name, x, right)
    return plant


def change_weight(which, change):
    """Reads the weights for which which(name, w) holds through change(w, model)."""
    def plant(model):
        right, changed = model.weight, {}

        def weight(name):
            if name not in changed:
                w = right(name)
                changed[name] = change(w, model) if which(name, w) else None
            return right(name) if changed[name] is None else changed[name]
        model.weight = weight
    return plant


def change_norm(which, change):
    """change(model, x, weight) in the place of the norms whose name's tail is in which."""
    def plant(model):
        right = model.norm
        model.norm = lambda name, x: (change(model, x, model.norm_weight(name))
                                      if not which or tail(name) in which else right(name, x))
    return plant


def change_names(rename):
    """Takes the weights of another name: rename(name, model)."""
    def plant(model):
        matrix, norm, bias = model.weight, model.norm_weight, model.bias
        model.weight = lambda name: matrix(rename(name, model))
        model.norm_weight = lambda name: norm(rename(name, model))
        model.bias = lambda name: bias(rename(name, model))
    return plant


def change_layers(order):
    """Takes the weights of layer order(layer, n_layer), or only of the tensors order returns a layer for."""
    def rename(name, model):
        parts = name.split(".")
        return f"blk.{order(int(parts[1]), model.n_layer)}.{parts[2]}" if parts[0] == "blk" else name
    return change_names(rename)


def change_rope(**fields):
    def plant(model):
        for which in {id(r): r for r in (model.rope, model.rope_local)}.values():
            for key, value in fields.items():
                setattr(which, key, value(which) if callable(value) else value)
    return plant


def wrap_rope(change):
    """change(model, right, x, positions) in the place of both rotations."""
    def plant(model):
        def wrap(right):
            return lambda x, positions: change(model, right, x, positions)
        model.rope, model.rope_local = wrap(model.rope), wrap(model.rope_local)
    return plant


def change_positions(change):
    return wrap_rope(lambda model, right, x, positions: right(x, change(positions)))


def change_add(which, change):
    """change(model, x, y) in the place of the residual additions whose name's tail is in which."""
    def plant(model):
        right = model.add
        model.add = lambda name, x, y: change(model, x, y) if tail(name) in which else right(name, x, y)
    return plant


def change_attend(change):
    """change(model, right, q, k, v, start, scale, window) in the place of attention."""
    def plant(model):
        right = model.attend
        model.attend = lambda *args: change(model, right, *args)
    return plant


def change_glu(glu):
    def plant(model):
        model.glu = glu
    return plant


def act(model):
    return nm.gelu_tanh if model.gemma else nm.silu


def change_gating(change):
    """change(act, gate, up), with the model's own activation."""
    def plant(model):
        model.glu = lambda g, u: change(act(model), g, u)
    return plant


def general_attention(q, k, v, start, scale, window, mask=None, head_map=None, axis=-1, weights=None, scores=None, v_map=None,
                      masked=-1e30, normal=None):
    """Attention with its parts to be replaced: mask(query, key), head_map(h), axis and form of the softmax, scores(s)."""
    t, n_head, _ = q.shape
    n_kv, start = k.shape[1], len(k) - len(q)
    owner = np.array([head_map(h) if head_map else h // (n_head // n_kv) for h in range(n_head)])
    of_v = np.array([v_map(h) for h in range(n_head)]) if v_map else owner
    s = np.einsum("thd,shd->hts", q, k[:, owner]) * scale
    if scores:
        s = scores(s)
    query, key = np.arange(start, start + t)[:, None], np.arange(k.shape[0])[None, :]
    visible = mask(query, key) if mask else key <= query
    if window:
        visible = visible & (query - key < window)
    s = masked(s, visible) if callable(masked) else np.where(visible, s, masked)
    e = np.exp(s - s.max(axis=axis, keepdims=True))
    p = normal(s, e) if normal else e / e.sum(axis=axis, keepdims=True)
    p = weights(p, visible) if weights else p
    return np.einsum("hts,shd->thd", p, v[:, of_v]).reshape(t, -1)


def reread(w, _):
    """The bytes of a row-major matrix read as if rows were columns."""
    return w.reshape(w.shape[::-1]).T


ALL = lambda name, w: True  # noqa: E731
