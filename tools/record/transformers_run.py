"""Records a run of Hugging Face transformers: what every module of a llama, qwen2, qwen3 or gemma3 model takes and gives.

    pip install transformers torch safetensors gguf numpy
    plumb record transformers -m MODEL -p "Hello world" --dtype bf16 -o theirs.trace
    plumb diff theirs.trace -m MODEL.gguf

MODEL is a folder with config.json and safetensors, or a GGUF file, whose decoded weights are written as such a folder first.
Attention is the eager one, so that its values are those of plain products; modules are watched by forward hooks, and the
function that rotates q and k is wrapped. Nothing is changed.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import common
import hf_values
from trace_writer import TraceWriter

PACKAGES = "transformers torch safetensors gguf numpy"


def watch_all(model, values, n_layer):
    """Hooks on all modules with a name of ours, and around the rotation of this architecture."""
    for path, module in model.named_modules():
        def before(_, positional, named, path=path):
            x = positional[0] if positional else named.get("hidden_states", named.get("x"))
            if x is not None:
                values.input(path, x.detach().clone())

        def after(_, __, y, path=path):
            values.output(path, (y[0] if isinstance(y, tuple) else y).detach().clone())

        def weights(_, __, y, path=path):
            if isinstance(y, tuple) and len(y) > 1 and y[1] is not None:
                values.weights(path, y[1].detach().clone())

        if path.endswith(".self_attn"):
            module.register_forward_hook(weights)
        if values.name(path) or values.name(path, True):
            module.register_forward_pre_hook(before, with_kwargs=True)
            module.register_forward_hook(after)
    code = importlib.import_module(type(model).__module__)
    right, calls = code.apply_rotary_pos_emb, []

    def rotate(q, k, *rest, **named):
        query, key = right(q, k, *rest, **named)
        layer = len(calls) % n_layer
        calls.append(layer)
        values.rotated(f"model.layers.{layer}.self_attn.rope", query.detach().clone(), key.detach().clone())
        return query, key

    code.apply_rotary_pos_emb = rotate


def load(args, folder):
    """(model, configuration, tokens)"""
    transformers, torch = common.module("transformers", PACKAGES), common.module("torch", PACKAGES)
    path = args.model
    if path.is_file():
        common.module("gguf", PACKAGES)
        import hf_weights
        hf_weights.write_folder(path, folder)
        tokens = args.tokens or common.tokenize(path, args.prompt)
        path = folder
    else:
        tokens = args.tokens or transformers.AutoTokenizer.from_pretrained(path)(args.prompt)["input_ids"]
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[args.dtype]
    model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=kind).eval()
    return model, getattr(model.config, "text_config", model.config), tokens


def decode(model, tokens, steps, values):
    """The prompt in one call, then `steps` greedy tokens one by one; the ids of each call."""
    import torch
    calls, cache = [list(tokens)], None
    with torch.no_grad():
        for step in range(steps + 1):
            values.start(len(calls[-1]))
            out = model(torch.tensor([calls[-1]]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            values.add("logits", "logits", out.logits)
            if step < steps:
                calls.append([int(out.logits[0, -1].argmax())])
    return calls


def parse(arguments):
    p = common.parser(__doc__, "text; its ids are the folder's tokenizer's, or plumb's for a GGUF file")
    p.add_argument("-m", "--model", required=True, type=common.existing, help="folder for transformers, or GGUF file")
    p.add_argument("-n", "--steps", type=common.count, default=0, help="greedy tokens after the prompt (0)")
    p.add_argument("--dtype", choices=["f32", "bf16", "f16"], default="f32", help="of weights and values (f32)")
    return p.parse_args(arguments)


def as_numpy(array):
    import torch
    return array.float().numpy(), "BF16" if array.dtype == torch.bfloat16 else None


def main(arguments):
    args = parse(arguments)
    with tempfile.TemporaryDirectory() as work:
        model, config, tokens = load(args, Path(work))
        arch = hf_values.ARCHITECTURES.get(config.model_type)
        if not arch:
            common.fail(f"model_type {config.model_type}; {', '.join(hf_values.ARCHITECTURES)} are known", 2)
        embedding = "inp_scaled" if arch == "gemma3" else "token_embd"  # its module multiplies as well
        values = hf_values.Values(arch, config.num_attention_heads, config.num_key_value_heads, embedding)
        watch_all(model, values, config.num_hidden_layers)
        calls = decode(model, tokens, args.steps, values)
    engine = {"name": "transformers", "version": common.version("transformers"), "backend": "cpu", "command": sys.argv}
    arithmetic = {"name": f"torch {args.dtype}", "weights": "decoded", "activations": args.dtype, "kv": args.dtype}
    with TraceWriter(args.output, engine, {"file": args.model.name, "arch": arch}, sum(calls, []), arithmetic,
                     [len(c) for c in calls]) as writer:
        values.write(writer, as_numpy)


if __name__ == "__main__":
    common.run(main)
