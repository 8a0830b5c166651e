"""Records a run of mlx-lm: what every module of a llama, qwen2, qwen3 or gemma3 model takes and gives, logits included.

    pip install mlx-lm gguf numpy             # on Linux: pip install mlx-lm "mlx[cpu]" gguf numpy
    plumb record mlx -m MODEL -p "Hello world" --dtype bf16 -o theirs.trace
    plumb diff theirs.trace -m MODEL.gguf

MODEL is a folder that mlx-lm loads, or a GGUF file, whose weights mlx-lm's own model classes then compute with, decoded.
The modules are mlx-lm's; each instance is watched, none is changed.
"""

import importlib
import sys

import common

PACKAGES = '"mlx[cpu]" mlx-lm gguf numpy' if sys.platform == "linux" else "mlx-lm gguf numpy"
np = common.module("numpy", PACKAGES)
import hf_values  # noqa: E402
from trace_writer import TraceWriter  # noqa: E402


def watch(module, before, after):
    """Calls before(x) and after(y) around each call of this one instance."""
    kind = type(module)

    def call(self, x, *rest, **named):
        before(type(x)(x))
        y = kind.__call__(self, x, *rest, **named)
        after(type(y)(y))  # the model may change the array itself: gemma3's h *= ...
        return y

    object.__setattr__(module, "__class__", type(kind.__name__, (kind,), {"__call__": call}))


def watch_all(model, values):
    for path, module in model.named_modules():
        if path.endswith(".self_attn.rope"):  # first q, then k
            turned = []

            def rotated(y, path=path, turned=turned):
                turned.append(y)
                query = len(turned) % 2 == 1
                values.rotated(path, y if query else None, None if query else y)

            watch(module, lambda x: None, rotated)
        elif values.name(path) or values.name(path, True):
            watch(module, lambda x, path=path: values.input(path, x), lambda y, path=path: values.output(path, y))


def load_gguf(mx, path):
    """(model, configuration) of mlx-lm's class with the weights of a GGUF file."""
    import hf_weights
    g = hf_weights.GgufFile(path)
    settings = hf_weights.config(g)
    module = importlib.import_module("mlx_lm.models." + settings["model_type"])
    model = module.Model(module.ModelArgs.from_dict(settings))
    weights = {name: mx.array(value) for name, value in hf_weights.weights(g)}
    model.load_weights(list(model.sanitize(weights).items()), strict=True)
    return model, settings


def load(mx, args):
    """(model, configuration, tokens)"""
    if args.model.is_file():
        model, settings = load_gguf(mx, args.model)
        tokens = args.tokens or common.tokenize(args.model, args.prompt)
    else:
        utils = common.module("mlx_lm.utils", PACKAGES)
        model, settings = utils.load_model(args.model)
        tokens = args.tokens or utils.load_tokenizer(args.model).encode(args.prompt)
    return model, settings.get("text_config", settings) | {"model_type": settings["model_type"]}, tokens


def decode(mx, model, tokens, steps, values):
    """The prompt in one call, then `steps` greedy tokens one by one; the ids of each call."""
    cache = common.module("mlx_lm.models.cache", PACKAGES).make_prompt_cache(model) if steps else None
    calls = [list(tokens)]
    for step in range(steps + 1):
        values.start(len(calls[-1]))
        logits = model(mx.array([calls[-1]]), cache=cache)
        values.add("logits", "logits", logits)
        mx.eval([record[2] for record in values.records])
        if step < steps:
            calls.append([int(mx.argmax(logits[0, -1]).item())])
    return calls


def parse(arguments):
    p = common.parser(__doc__, "text; its ids are the folder's tokenizer's, or plumb's for a GGUF file")
    p.add_argument("-m", "--model", required=True, type=common.existing, help="folder for mlx-lm, or GGUF file")
    p.add_argument("-n", "--steps", type=common.count, default=0, help="greedy tokens after the prompt (0)")
    p.add_argument("--dtype", choices=["f32", "bf16", "f16"], default="f32", help="of weights and values (f32)")
    p.add_argument("--device", choices=["cpu", "gpu"], help="default: MLX's")
    return p.parse_args(arguments)


def main(arguments):
    args = parse(arguments)
    mx = common.module("mlx.core", PACKAGES)
    common.module("mlx_lm", PACKAGES)
    if args.device:
        mx.set_default_device(getattr(mx, args.device))
    model, settings, tokens = load(mx, args)
    arch = hf_values.ARCHITECTURES.get(settings["model_type"])
    if not arch:
        common.fail(f"model_type {settings['model_type']}; {', '.join(hf_values.ARCHITECTURES)} are known", 2)
    model.set_dtype({"f32": mx.float32, "bf16": mx.bfloat16, "f16": mx.float16}[args.dtype])
    values = hf_values.Values(arch, settings["num_attention_heads"], settings["num_key_value_heads"])
    watch_all(model, values)
    calls = decode(mx, model, tokens, args.steps, values)

    def as_numpy(array):
        if array.dtype == mx.bfloat16:
            return np.array(array.astype(mx.float32)), "BF16"
        return np.array(array), None

    engine = {"name": "mlx-lm", "version": common.version("mlx-lm"), "backend": str(mx.default_device()),
              "command": sys.argv}
    kind = "quantised" if "quantization" in settings else "decoded"
    arithmetic = {"name": f"mlx {args.dtype}", "weights": kind, "activations": args.dtype, "kv": args.dtype}
    with TraceWriter(args.output, engine, {"file": args.model.name, "arch": arch}, sum(calls, []), arithmetic,
                     [len(c) for c in calls]) as writer:
        values.write(writer, as_numpy)


if __name__ == "__main__":
    common.run(main)
