"""Known bugs of reading a file's bytes, for the benchmark of plumb diagnose: decoders of GGUF's blocks that can be wrong.

The right decoders follow ggml's published block layouts and are compared with the PyPI package `gguf` by the benchmark's test.
A `wrong` is a word that one of them knows; names of faults begin with the catalogue's id.
"""

import numpy as np

from planting import table, tail

BYTES = {}
fault = table(BYTES)


def halves(raw, kind="<f2"):
    return np.ascontiguousarray(raw).view(kind).astype(np.float64)


def scale(raw, wrong):
    """An f16 scale, [blocks, 1]."""
    if wrong == "swapped":
        return halves(raw, ">f2")
    if wrong == "bf16":
        return (np.ascontiguousarray(raw).view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    d = halves(raw)
    if wrong in ("previous", "previous header"):
        return np.roll(d, 1, axis=0)
    return d


def of_row(d, wrong, blocks_of_row):
    return np.repeat(d.reshape(-1, blocks_of_row)[:, :1], blocks_of_row, 1).reshape(-1, 1) if wrong == "row" else d


def nibbles(qs, wrong):
    low, high = qs & 15, qs >> 4
    if wrong == "pairs":
        return np.stack([low, high], -1).reshape(len(qs), -1)
    if wrong == "pairs high first":
        return np.stack([high, low], -1).reshape(len(qs), -1)
    both = np.concatenate([high, low] if wrong == "high first" else [low, high], 1)
    return both & 7 if wrong == "mask" else both


def half_step(wrong):
    return 0.5 if wrong == "half step" else 0.0


def q4_0(b, wrong, row):
    d, codes = of_row(scale(b[:, :2], wrong), wrong, row), nibbles(b[:, :16] if wrong == "header" else b[:, 2:], wrong).astype(float)
    if wrong == "complement":
        return d * np.where(codes > 7, codes - 16, codes)
    return d * (codes - (0 if wrong == "no offset" else 8) + half_step(wrong))


def q4_1(b, wrong, row):
    d, m = scale(b[:, :2], wrong), scale(b[:, 2:4], None if wrong == "previous" else wrong)
    d = of_row(d, wrong, row)
    codes = nibbles(b[:, 2:18] if wrong == "short header" else b[:, 4:], wrong).astype(float) + half_step(wrong)
    if wrong == "exchanged":
        d, m = m, d
    m = {"no min": 0 * m, "negated": -m, "like q4_0": 0 * m}.get(wrong, m)
    return d * (codes - (8 if wrong in ("like q4_0", "minus 8") else 0)) + m


def q5_0(b, wrong, row):
    d = of_row(scale(b[:, :2], wrong), wrong, row)
    bits = np.unpackbits(np.ascontiguousarray(b[:, 2:6]), axis=1, bitorder="little")
    if wrong == "fifth order":
        bits = np.concatenate([bits[:, 0::2], bits[:, 1::2]], 1)
    codes = nibbles(b[:, 6:], wrong) + (0 if wrong == "fifth ignored" else 16) * bits.astype(float)
    return d * (codes - (0 if wrong == "no offset" else 16) + half_step(wrong))


def q8_0(b, wrong, row):
    d = of_row(scale(b[:, :2], wrong), wrong, row)
    codes = np.ascontiguousarray(b[:, :32] if wrong == "header" else b[:, 2:])
    return d * ((codes if wrong == "unsigned" else codes.view(np.int8)).astype(float) + half_step(wrong))


def q4_k(b, wrong, row):
    d, dmin = of_row(scale(b[:, :2], wrong), wrong, row), scale(b[:, 2:4], None if wrong == "previous" else wrong)
    packed, qs = b[:, 4:16], b[:, 16:]
    sc, mn = packed[:, 0:4] & 63, packed[:, 4:8] & 63
    if wrong == "plain scales":
        high_sc, high_mn = packed[:, 8:12] & 63, packed[:, 8:12] & 63
    else:
        high_sc = (packed[:, 8:12] & 15) | (packed[:, 0:4] >> 6 << 4)
        high_mn = (packed[:, 8:12] >> 4) | (packed[:, 4:8] >> 6 << 4)
    sc, mn = np.concatenate([sc, high_sc], 1).astype(float), np.concatenate([mn, high_mn], 1).astype(float)
    if wrong == "exchanged":
        sc, mn = mn, sc
    q = qs.reshape(-1, 4, 32)
    codes = (np.stack([q & 15, q >> 4], -1).reshape(-1, 8, 32) if wrong == "pairs" else
             np.stack([q & 15, q >> 4], 2).reshape(-1, 8, 32))
    sign = {"no min": 0.0, "added": 1.0}.get(wrong, -1.0)
    return ((d * sc)[..., None] * ((codes & 7 if wrong == "mask" else codes) + half_step(wrong)) + sign * (dmin * mn)[..., None]
            ).reshape(len(b), -1)


def q6_k(b, wrong, row):
    ql, qh, sc, d = b[:, :128], b[:, 128:192], np.ascontiguousarray(b[:, 192:208]), of_row(scale(b[:, 208:], wrong), wrong, row)
    sc = (sc if wrong == "unsigned" else sc.view(np.int8)).astype(float)
    if wrong == "pairs":  # everything in sequence: weight i has nibble i and bit pair i
        low = np.stack([ql & 15, ql >> 4], -1).reshape(len(b), 256)
        high = np.stack([(qh >> s) & 3 for s in (0, 2, 4, 6)], -1).reshape(len(b), 256)
    else:
        l, h = ql.reshape(-1, 2, 64), qh.reshape(-1, 2, 32)
        low = np.concatenate([l & 15, l >> 4], 2).reshape(len(b), 256)
        high = np.concatenate([(h >> s) & 3 for s in (0, 2, 4, 6)], 2).reshape(len(b), 256)
    codes = (low | high << 4).astype(float) - (0 if wrong == "no offset" else 32) + half_step(wrong)
    if wrong == "quarters":
        codes = codes * (np.arange(256) % 128 < 32)
    return d * np.repeat(sc, 16, 1) * codes


DECODERS = {"Q4_0": (q4_0, 18), "Q4_1": (q4_1, 20), "Q5_0": (q5_0, 22), "Q8_0": (q8_0, 34), "Q4_K": (q4_k, 144), "Q6_K": (q6_k, 210)}


def decode(tensor, wrong=None):
    """A tensor of gguf's reader as f64, read wrongly; None of types that are not known here."""
    kind = tensor.tensor_type.name
    if kind not in DECODERS:
        return None
    function, size = DECODERS[kind]
    raw = np.asarray(tensor.data)
    blocks = np.ascontiguousarray(raw).reshape(-1, size)
    with np.errstate(all="ignore"):
        y = function(blocks, wrong, raw.reshape(raw.shape[0], -1).shape[1] // size)
    return y.reshape(raw.shape[0], -1)


def read_by(read, which=lambda name: True):
    """read(tensor, w) in the place of every weight and of the table; None leaves it."""
    def plant(model):
        matrix, rows, norm, changed = model.weight, model.table, model.norm_weight, {}

        def get(name, right):
            if name not in changed:
                with np.errstate(all="ignore"):
                    changed[name] = read(model.w.tensors[name + ".weight"], right()) if which(name) else None
            return right() if changed[name] is None else changed[name]
        model.weight = lambda name: get(name, lambda: matrix(name))
        model.norm_weight = lambda name: get(name, lambda: norm(name))
        model.table = lambda: get("token_embd", rows)
    return plant


def has(*types):
    return lambda model: any(t.tensor_type.name in types for t in model.w.reader.tensors)


WEIGHTS = "token_embd attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down logits"


def wrong_decoder(name, wrong, types, which=lambda name: True):
    fault(name, WEIGHTS, needs=has(*types))(read_by(lambda t, w: decode(t, wrong) if t.tensor_type.name in types else None, which))


ALL_TYPES = tuple(DECODERS)
NIBBLES = ("Q4_0", "Q4_1")
wrong_decoder("A8 bytes of f16 scales swapped", "swapped", ALL_TYPES)
wrong_decoder("B1 nibbles are neighbours", "pairs", NIBBLES)
wrong_decoder("B1b high nibbles first", "high first", NIBBLES)
wrong_decoder("B1c nibbles are neighbours, high one first", "pairs high first", NIBBLES)
wrong_decoder("B2 codes in two's complement", "complement", ("Q4_0", ))
wrong_decoder("B2b offset not taken off", "no offset", ("Q4_0", "Q5_0"))
wrong_decoder("B3 header of 2 bytes", "short header", ("Q4_1", ))
wrong_decoder("B3b minimum ignored", "no min", ("Q4_1", ))
wrong_decoder("B3c minimum subtracted", "negated", ("Q4_1", ))
wrong_decoder("B3d scale and minimum exchanged", "exchanged", ("Q4_1", ))
wrong_decoder("B3e decoded like Q4_0", "like q4_0", ("Q4_1", ))
wrong_decoder("B3f 8 taken off the codes", "minus 8", ("Q4_1", ))
wrong_decoder("B4 fifth bits go to neighbours", "fifth order", ("Q5_0", ))
wrong_decoder("B4b fifth bits ignored", "fifth ignored", ("Q5_0", ))
wrong_decoder("B4c nibbles of Q5_0 are neighbours", "pairs", ("Q5_0", ))
wrong_decoder("B5 f16 scales read as bf16", "bf16", ALL_TYPES)
wrong_decoder("B8 codes of Q8_0 unsigned", "unsigned", ("Q8_0", ))
wrong_decoder("B8b header read as codes", "header", ("Q8_0", "Q4_0"))
wrong_decoder("B8c scale of the block before", "previous", ALL_TYPES)
wrong_decoder("B8e scale and minimum of the block before", "previous header", ALL_TYPES)
wrong_decoder("B8d scale of the row", "row", ALL_TYPES)
wrong_decoder("B11 scales 4 to 7 read plainly", "plain scales", ("Q4_K", ))
wrong_decoder("B11b scales and minima exchanged", "exchanged", ("Q4_K", ))
wrong_decoder("B12 nibbles of Q4_K in sequence", "pairs", ("Q4_K", ))
wrong_decoder("B13 minima dropped", "no min", ("Q4_K", ))
wrong_decoder("B13b minima added", "added", ("Q4_K", ))
wrong_decoder("B15 Q6_K in sequence", "pairs", ("Q6_K", ))
wrong_decoder("B16 first quarters of Q6_K only", "quarters", ("Q6_K", ))
wrong_decoder("B17 scales of Q6_K unsigned", "unsigned", ("Q6_K", ))
wrong_decoder("B17b 32 not taken off", "no offset", ("Q6_K", ))
wrong_decoder("B19b order wrong in ffn_down", "pairs", ("Q4_0", "Q4_1", "Q4_K", "Q6_K"), lambda n: tail(n) == "ffn_down")
wrong_decoder("B21b minima of k and v ignored", "no min", ("Q4_1", "Q4_K"), lambda n: tail(n) in ("attn_k", "attn_v"))
wrong_decoder("B23 codes masked to 3 bits", "mask", ("Q4_0", "Q4_1", "Q4_K"))
wrong_decoder("B24 half a step added", "half step", ALL_TYPES)


@fault("A6 data section begins later", "token_embd", values=lambda rng: int(rng.choice([2, 4, 8, 32, 64, 128, 1024])))
def late(count):
    def read(tensor, right):
        n = tensor.n_bytes
        with open(late.path, "rb") as stream:
            stream.seek(int(tensor.data_offset) + count)
            data = stream.read(n)
        other = type("Moved", (), {"tensor_type": tensor.tensor_type})
        other.data = np.frombuffer(data.ljust(n, b"\0"), np.uint8).reshape(right.shape[0] if right.ndim > 1 else 1, -1)
        if tensor.tensor_type.name == "F32":
            return other.data.view("<f4").astype(np.float64).reshape(right.shape)
        return decode(other)

    def plant(model):
        late.path = model.w.path
        read_by(read)(model)
    return plant


fault("A8b bytes of F32 tensors swapped", "attn_norm")(read_by(
    lambda t, w: w.astype("<f4").view(">f4").astype(np.float64) if t.tensor_type.name == "F32" else None))
