"""Records a run of llama.cpp, every node, through the public evaluation callback; llama.cpp is not changed.

    pip install llama-cpp-python numpy          # builds llama.cpp; LLAMA_CPP_LIB_PATH names another build's folder
    plumb record llamacpp -m MODEL.gguf -p "Hello world" -o theirs.trace
    plumb diff theirs.trace -m MODEL.gguf

Runs on the CPU with the logits of every token: the whole prompt in one call, or -ub tokens per call, then -n tokens chosen
greedily, one per call. With -fa off the values inside attention are recorded as well. Nodes whose meaning is known get Plumb's
names; all others keep llama.cpp's. Names are those of llama.cpp 0.5; docs/trace-format.md has the translation.
"""

import collections
import ctypes
import re
import sys
from pathlib import Path

import common
from llamacpp_names import MOVES, canonical

ERROR = 4  # ggml.h, enum ggml_log_level
PACKAGES = "llama-cpp-python numpy"
np = common.module("numpy", PACKAGES)
from trace_writer import TraceWriter  # noqa: E402

class Tensor(ctypes.Structure):  # ggml.h, struct ggml_tensor, as far as it is read
    _fields_ = [("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
                ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
                ("src", ctypes.c_void_p * 10), ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t),
                ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64)]


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
    """What the callback sees of one call: nodes in order of computation; of several nodes for one value the last counts."""

    def __init__(self, library, n_tokens, heads, first=0):
        self.library, self.n_tokens, self.heads, self.first, self.step = library, n_tokens, heads, first, 0
        self.nodes, self.failure = [], None

    def begin(self, n_tokens):
        """The next call, of so many tokens."""
        self.step += self.n_tokens > 0
        self.first, self.n_tokens, self.nodes = self.first + self.n_tokens, n_tokens, []

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
            if value and ".attn." in value:  # [heads, tokens, keys or head_dim]
                rows = rows.reshape(-1, self.n_tokens, rows.shape[-1]).transpose(1, 0, 2)
            elif value:
                rows = rows.reshape(self.n_tokens, -1)
                n_head = self.heads.get(value.rsplit(".", 1)[-1])
                if n_head:
                    rows = rows.reshape(self.n_tokens, n_head, -1)
            elif rows.ndim != 2 or len(rows) != self.n_tokens:
                continue  # scores and other values that are not rows of tokens
            seen[raw] += 1
            writer.add(value, raw if seen[raw] == 1 else f"{raw}#{seen[raw]}", op.lower(), rows, self.first, self.step)

    def logits(self):
        """Those of the call's last token."""
        return next(rows for value, _, _, rows in reversed(self.nodes) if value == "logits").reshape(self.n_tokens, -1)[-1]


def parse(arguments):
    p = common.parser(__doc__, "text, with the model's BOS in front where it wants one")
    p.add_argument("-m", "--model", required=True, type=common.existing, help="GGUF file")
    p.add_argument("-t", "--threads", type=int, default=0)
    p.add_argument("-fa", "--flash-attn", choices=["on", "off", "auto"], default="auto")
    p.add_argument("-ub", "--ubatch-size", type=common.count, default=0, help="prompt tokens per call; 0: all")
    p.add_argument("-n", "--steps", type=common.count, default=0, help="tokens to choose greedily after the prompt")
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


def context_of(llama, model, n_tokens, args, callback):
    options = llama.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = max(32, n_tokens)
    options.cb_eval = callback
    options.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[args.flash_attn]
    if args.threads > 0:
        options.n_threads = options.n_threads_batch = args.threads
    context = llama.llama_init_from_model(model, options)
    if not context:
        common.fail("no context could be made")
    return context


def decode(llama, context, tokens, first):
    """One call; the callback sees it."""
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, first + i, 1, 1
        batch.seq_id[i][0] = 0
    batch.n_tokens = len(tokens)
    status = llama.llama_decode(context, batch)
    llama.llama_batch_free(batch)
    if status != 0:
        common.fail(f"llama_decode gave {status}")


def run(llama, context, tokens, args, recorder, writer):
    """The prompt in calls, then the steps; returns all tokens that were fed and the sizes of the calls."""
    size = args.ubatch_size or len(tokens)
    calls = [tokens[i:i + size] for i in range(0, len(tokens), size)]
    fed, sizes, n_calls = [], [], len(calls) + args.steps
    while len(sizes) < n_calls:
        call = calls[len(sizes)] if len(sizes) < len(calls) else [int(recorder.logits().argmax())]
        recorder.begin(len(call))
        decode(llama, context, call, len(fed))
        if recorder.failure:
            raise recorder.failure
        recorder.write(writer)
        fed, sizes = fed + call, sizes + [len(call)]
    return fed, sizes


def load_library(llama):
    """ggml's own library, which knows the names of operations; llama.cpp says nothing but errors from here on."""
    library = ctypes.CDLL(str(Path(llama._lib._name).with_name("libggml-base.so")))
    library.ggml_op_name.restype, library.ggml_op_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    library.quiet = llama.llama_log_callback(
        lambda level, text, _: level == ERROR and sys.stderr.write(text.decode(errors="replace")))
    llama.llama_log_set(library.quiet, None)
    llama.llama_backend_init()
    return library


def load_model(llama, path):
    options = llama.llama_model_default_params()
    options.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(bytes(path), options)
    if not model:
        common.fail(f"llama.cpp cannot load {path}")
    return model


def heads_of(llama, model):
    n_head, n_kv = llama.llama_model_n_head(model), llama.llama_model_n_head_kv(model)
    return {"attn_q": n_head, "attn_q_norm": n_head, "q_rope": n_head, "attn_k": n_kv, "attn_k_norm": n_kv,
            "k_rope": n_kv, "attn_v": n_kv}


def main(arguments):
    args = parse(arguments)
    llama = common.module("llama_cpp.llama_cpp", PACKAGES)
    library = load_library(llama)
    model = load_model(llama, args.model)
    tokens = tokenize(llama, model, args)
    recorder = Recorder(library, 0, heads_of(llama, model))
    callback = llama.ggml_backend_sched_eval_callback(recorder)
    context = context_of(llama, model, len(tokens) + args.steps, args, callback)
    with TraceWriter(args.output, {"name": "llama.cpp", "backend": "cpu", "command": sys.argv},
                     {"file": args.model.name, "bytes": args.model.stat().st_size}, tokens,
                     {"name": "llama.cpp", "weights": "quantised", "kv": "f16"}) as writer:
        fed, sizes = run(llama, context, tokens, args, recorder, writer)
        writer.header["input"].update(tokens=fed, calls=sizes)


if __name__ == "__main__":
    common.run(main)
