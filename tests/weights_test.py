"""plumb diff --weights on a real model: its export under Hugging Face's names, in one file and in a folder with an index.

The export is made with NumPy from the weights that the package gguf decodes; nothing of it is Plumb's.
"""

import functools
import json
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
import harness as h  # noqa: E402
import numpy as np  # noqa: E402
import weights  # noqa: E402

MODULES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
           "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
           "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
           "ffn_norm": "post_attention_layernorm"}
GEMMA = {**MODULES, "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm"}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def module_of(name, gemma):
    base, _, kind = name.rpartition(".")
    if base in OUTSIDE:
        return f"{OUTSIDE[base]}.{kind}"
    _, layer, tensor = base.split(".")
    return f"model.layers.{layer}.{(GEMMA if gemma else MODULES)[tensor]}.{kind}"


def to_halves(x, heads):
    """GGUF's row order of q and k (pairs are neighbours) to Hugging Face's (pairs are half a head apart)."""
    y = x.reshape(heads, -1, 2, x.shape[1])
    return np.concatenate([y[:, :, 0], y[:, :, 1]], axis=1).reshape(x.shape)


def exported(path, permute=True, plus_one=True):
    """The tensors of a GGUF file as a Hugging Face checkpoint has them; a dictionary of the caller's own."""
    return dict(exported_once(path, permute, plus_one))


@functools.cache
def exported_once(path, permute, plus_one):
    w, out = weights.Weights(path), {}
    heads, kv = w.meta("attention.head_count"), w.meta("attention.head_count_kv")
    gemma = w.arch == "gemma3"
    for name in w.tensors:
        if name == "rope_freqs.weight":
            continue
        x = w.f32(name)
        if permute and w.arch == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            x = to_halves(x, heads if "attn_q" in name else kv)
        if plus_one and gemma and name.endswith("norm.weight"):
            x = x - np.float32(1)
        out[module_of(name, gemma)] = x
    return out


def save(path, tensors, dtype="F32"):
    entries, blobs, at = {}, [], 0
    for name, x in tensors.items():
        if dtype == "BF16":
            bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
            blob = ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
        else:
            blob = np.ascontiguousarray(x, {"F32": np.float32, "F16": np.float16}[dtype]).tobytes()
        entries[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    head = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    Path(path).write_bytes(struct.pack("<Q", len(head)) + head + b"".join(blobs))
    return path


def diff(*arguments):
    r = subprocess.run([h.PLUMB, "diff", "--weights", *map(str, arguments), "--json"], capture_output=True, timeout=300)
    assert r.returncode in (0, 1, 2), r.stderr.decode()
    return r.returncode, json.loads(r.stdout)


def smollm2():
    return Path(h.real_model("smollm2")[0])


class WeightsOfFiles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_smollm2_and_its_export_are_the_same_in_every_float_type(self):
        tensors = exported(smollm2())
        for dtype in ("F32", "BF16"):
            file = save(self.folder / f"{dtype}.safetensors", tensors, dtype)
            for pair in ((smollm2(), file), (file, smollm2()))[:1 if dtype == "F32" else 2]:
                status, d = diff(*pair)
                self.assertEqual((status, d["verdict"], d["differ"], d["common"]), (0, "same", 0, 272), dtype)
                self.assertEqual(d["same"] == 272, dtype == "F32")
                self.assertEqual(sum("convention" in t for t in d["tensors"]), 60)

    def test_a_folder_with_an_index_is_one_model(self):
        tensors = exported(smollm2())
        names = sorted(tensors)
        shards = {"a.safetensors": names[:100], "b.safetensors": names[100:]}
        for file, list_ in shards.items():
            save(self.folder / file, {n: tensors[n] for n in list_}, "BF16")
        index = {"metadata": {}, "weight_map": {n: file for file, list_ in shards.items() for n in list_}}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index))
        status, d = diff(smollm2(), self.folder)
        self.assertEqual((status, d["common"], d["differ"]), (0, 272, 0))

    def test_faults_of_conversion_are_named(self):
        tensors = exported(smollm2())
        layer = "model.layers.4."
        gate, up, down = (layer + f"mlp.{n}_proj.weight" for n in ("gate", "up", "down"))
        tensors[gate], tensors[up] = tensors[up], tensors[gate]
        tensors[down] = np.ascontiguousarray(tensors[down].T).reshape(tensors[down].shape)
        tensors[layer + "input_layernorm.weight"] = tensors[layer + "input_layernorm.weight"] + np.float32(1)
        tensors[layer + "self_attn.v_proj.weight"] = tensors[layer + "self_attn.v_proj.weight"] * np.float32(1.1)
        tensors[layer + "self_attn.o_proj.weight"] = tensors[layer + "self_attn.o_proj.weight"].copy()
        tensors[layer + "self_attn.o_proj.weight"][33] *= -1
        del tensors["model.layers.7.post_attention_layernorm.weight"]
        status, d = diff(smollm2(), save(self.folder / "x.safetensors", tensors, "BF16"))
        self.assertEqual({t["name"]: t.get("cause") for t in d["tensors"] if t["verdict"] == "differs"}, {
            "blk.4.ffn_gate.weight": "the second holds the first's blk.4.ffn_gate.weight in blk.4.ffn_up.weight",
            "blk.4.ffn_up.weight": "the second holds the first's blk.4.ffn_up.weight in blk.4.ffn_gate.weight",
            "blk.4.ffn_down.weight": "transposed under the same shape",
            "blk.4.attn_norm.weight": "the second is the first plus 1",
            "blk.4.attn_v.weight": "the second is the first times 1.1",
            "blk.4.attn_output.weight": "only row 33",
            "blk.7.ffn_norm.weight": "missing in the second"})
        self.assertEqual(status, 1)

    def test_a_converter_that_forgot_the_order_of_q_and_k_is_told_apart_from_one_that_did_not(self):
        file = save(self.folder / "x.safetensors", exported(smollm2(), permute=False), "F16")
        status, d = diff(smollm2(), file)
        self.assertEqual((status, d["differ"]), (1, 60))
        causes = {t["cause"] for t in d["tensors"] if t["verdict"] == "differs"}
        self.assertEqual(len(causes), 1)
        self.assertIn("rows permuted by heads", causes.pop())

    def test_every_architecture_has_its_names_and_conventions(self):
        for case, path in h.small_models():
            if case.format not in ("F32", "Q8_0"):
                continue
            with self.subTest(case.name):
                status, d = diff(path, save(self.folder / "x.safetensors", exported(path)))
                self.assertEqual((status, d["differ"]), (0, 0), [t for t in d["tensors"] if t["verdict"] == "differs"])
                if weights.Weights(path).arch == "gemma3":
                    status, d = diff(path, save(self.folder / "y.safetensors", exported(path, plus_one=False)))
                    self.assertEqual(status, 1)
                    self.assertEqual({t["cause"] for t in d["tensors"] if t["verdict"] == "differs"},
                                     {"the second is the first plus 1"})

    def test_what_cannot_be_read_or_compared_has_status_3_and_one_line(self):
        good, bad = save(self.folder / "a.safetensors", {"a": np.zeros((2, 2))}), self.folder / "bad.safetensors"
        other = save(self.folder / "b.safetensors", {"b": np.zeros((2, 2))})
        bad.write_bytes(good.read_bytes()[:-1])
        cut = self.folder / "cut.gguf"
        cut.write_bytes(smollm2().read_bytes()[:1000])
        for pair in ((good, bad), (cut, good), (good, self.folder / "none.gguf"), (good, other)):
            r = subprocess.run([h.PLUMB, "diff", "--weights", *pair], capture_output=True, text=True)
            self.assertEqual((r.returncode, len((r.stdout + r.stderr).splitlines())), (3, 1), r.stderr + r.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
