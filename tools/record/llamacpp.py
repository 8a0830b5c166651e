"""Records a run of llama.cpp, every node, through the public evaluation callback; llama.cpp is not changed.

    pip install llama-cpp-python numpy          # builds llama.cpp; LLAMA_CPP_LIB_PATH names another build's folder
    plumb record llamacpp -m MODEL.gguf -p "Hello world" -o theirs.trace
    plumb diff theirs.trace -m MODEL.gguf

Runs on the CPU, the whole prompt in one call with the logits of every token. Nodes whose meaning is known get Plumb's
names; all others keep llama.cpp's. Names are those of llama.cpp 0.5; docs/trace-format.md has the translation.
"""

import collections
import ctypes
import re
import sys
from pathlib import Path

import common

PACKAGES = "llama-cpp-python numpy"
np = common.module("numpy", PACKAGES)
from trace_writer import TraceWriter  # noqa: E402

# llama.cpp's name of a node -> Plumb's, by the operation where one name stands for several values.
GLOBAL = {"inp_embd": "token_embd", "embd": "token_embd", "inp_scaled": "inp_scaled", "result_norm": "output_norm",
          "result_output": "logits"}
LAYER = {"attn_norm": "attn_norm", "Qcur_normed": "attn_q_norm", "Kcur_normed": "attn_k_norm", "kqv_out": "attn", "__fattn__": "attn",
         "attn_out": "attn_output", "attn_post_norm": "post_attention_norm", "sa_out": "attn_out", "ffn_inp": "attn_out",
         "ffn_norm": "ffn_norm", "ffn_gate": "ffn_gate", "ffn_up": "ffn_up", "ffn_swiglu": "ffn_act",
         "ffn_geglu": "ffn_act", "ffn_gate_par": "ffn_act", "ffn_out": "ffn_down", "ffn_post_norm": "post_ffw_norm",
         "l_out": "ffn_out"}
HEADS = {"Qcur": ("attn_q", "q_rope"), "Kcur": ("attn_k", "k_rope"), "Vcur": ("attn_v", None)}
MOVES = {"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "CONT", "CPY", "DUP", "SET_ROWS"}  # make no new value


class Tensor(ctypes.Structure):  # ggml.h, struct ggml_tensor, as far as it is read
    _fields_ = [("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
                ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
                ("src", ctypes.c_void_p * 10), ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t),
                ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64)]


def canonical(raw, op):
    """Plumb's name of a node, or None."""
    m = re.fullmatch(r"(\w+)-(\d+)", raw)
    if not m:
        return GLOBAL.get(raw)
    name, layer = m.groups()
    if name in HEADS:
        plain, turned = HEADS[name]
        value = turned if op == "ROPE" else plain if op in ("MUL_MAT", "ADD") else None
    else:
        value = LAYER.get(name)
    return f"blk.{layer}.{value}" if value else None


def rows_of(t):
    """The elements as [tokens, ..., dim] in float32, or None where they are not of a type or shape to record."""
    kind = {0: np.float32, 1: np.float16}.get(t.type)
    if kind is None or t.ne[3] != 1 or not t.data:
        return None
    shape, strides = [t.ne[2], t.ne[1], t.ne[0]], [t.nb[2], t.nb[1], t.nb[0]]
    end = sum((n - 1) * s for n, s in zip(shape, strides)) + kind().itemsize
    memory = np.frombuffer((ctypes.c_char * end).from_address(t.data), np.uint8)
    a = np.ndarray(shape, kind, memory, 0, strides).astype(np.float32)
    return a[0] if a.shape[0] == 1 else a


class Recorder:
    """What the callback sees: nodes in order of computation; of several nodes for one value the last counts."""

    def __init__(self, library, n_tokens, heads):
        self.library, self.n_tokens, self.heads = library, n_tokens, heads
        self.nodes, self.failure = [], None

    def __call__(self, pointer, ask, _):
        if ask or self.failure:
            return True
        try:
            t = ctypes.cast(pointer, ctypes.POINTER(Tensor)).contents
            op = self.library.ggml_op_name(t.op).decode()
            raw = t.name.decode(errors="replace")
            if op not in MOVES or raw.startswith("kqv_out-"):  # the heads side by side again
                rows = rows_of(t)
                if rows is not None:
                    self.nodes.append((canonical(raw, op) or self.unnamed(raw, op), raw, op, rows))
        except Exception as e:  # must not cross the C code
            self.failure = e
        return True

    def unnamed(self, raw, op):
        """Gemma 3's output matrix has no name; it is the product that follows the heads."""
        before = self.nodes[-1][0] if self.nodes else None
        if op == "MUL_MAT" and re.fullmatch(r"node_\d+", raw) and before and before.endswith(".attn"):
            return before + "_output"
        return None

    def write(self, writer):
        last = {value: i for i, (value, *_) in enumerate(self.nodes) if value}
        seen = collections.Counter()
        for i, (value, raw, op, rows) in enumerate(self.nodes):
            value = value if value and last[value] == i else None
            if value:
                rows = rows.reshape(self.n_tokens, -1)
                n_head = self.heads.get(value.rsplit(".", 1)[-1])
                if n_head:
                    rows = rows.reshape(self.n_tokens, n_head, -1)
            elif rows.ndim != 2 or len(rows) != self.n_tokens:
                continue  # scores and other values that are not rows of tokens
            seen[raw] += 1
            writer.add(value, raw if seen[raw] == 1 else f"{raw}#{seen[raw]}", op.lower(), rows)


def parse(arguments):
    p = common.parser(__doc__, "text, with the model's BOS in front where it wants one")
    p.add_argument("-m", "--model", required=True, type=common.existing, help="GGUF file")
    p.add_argument("-t", "--threads", type=int, default=0)
    p.add_argument("-fa", "--flash-attn", choices=["on", "off", "auto"], default="auto")
    return p.parse_args(arguments)


def tokenize(llama, model, args):
    if args.tokens:
        return args.tokens
    vocab, text = llama.llama_model_get_vocab(model), args.prompt.encode()
    ids = (llama.llama_token * (len(text) + 16))()
    n = llama.llama_tokenize(vocab, text, len(text), ids, len(ids), True, False)
    if n <= 0:
        common.fail("the prompt has no tokens")
    return list(ids[:n])


def run(llama, model, tokens, args, callback):
    """One call with all tokens; returns nothing, the callback has seen it all."""
    options = llama.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = max(32, len(tokens))
    options.cb_eval = callback
    options.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[args.flash_attn]
    if args.threads > 0:
        options.n_threads = options.n_threads_batch = args.threads
    context = llama.llama_init_from_model(model, options)
    if not context:
        common.fail("no context could be made")
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    batch.n_tokens = len(tokens)
    status = llama.llama_decode(context, batch)
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    if status != 0:
        common.fail(f"llama_decode gave {status}")


def main(arguments):
    args = parse(arguments)
    llama = common.module("llama_cpp.llama_cpp", PACKAGES)
    base = Path(llama._lib._name).with_name("libggml-base.so")
    library = ctypes.CDLL(str(base))
    library.ggml_op_name.restype, library.ggml_op_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    llama.llama_backend_init()
    options = llama.llama_model_default_params()
    options.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(bytes(args.model), options)
    if not model:
        common.fail(f"llama.cpp cannot load {args.model}")
    tokens = tokenize(llama, model, args)
    n_head, n_kv = llama.llama_model_n_head(model), llama.llama_model_n_head_kv(model)
    heads = {"attn_q": n_head, "attn_q_norm": n_head, "q_rope": n_head, "attn_k": n_kv, "attn_k_norm": n_kv,
             "k_rope": n_kv, "attn_v": n_kv}
    recorder = Recorder(library, len(tokens), heads)
    run(llama, model, tokens, args, llama.ggml_backend_sched_eval_callback(recorder))
    if recorder.failure:
        raise recorder.failure
    with TraceWriter(args.output, {"name": "llama.cpp", "backend": "cpu", "command": sys.argv},
                     {"file": args.model.name, "bytes": args.model.stat().st_size}, tokens,
                     {"name": "llama.cpp", "weights": "quantised", "kv": "f16"}) as writer:
        recorder.write(writer)


if __name__ == "__main__":
    common.run(main)
