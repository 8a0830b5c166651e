"""What llama.cpp calls its nodes, in Plumb's names (docs/trace-format.md); those of llama.cpp 0.5."""

import re

# llama.cpp's name of a node -> Plumb's, by the operation where one name stands for several values.
GLOBAL = {"inp_embd": "token_embd", "embd": "token_embd", "inp_scaled": "inp_scaled", "result_norm": "output_norm",
          "result_output": "logits"}
LAYER = {"attn_norm": "attn_norm", "Qcur_normed": "attn_q_norm", "Kcur_normed": "attn_k_norm", "kqv_out": "attn", "__fattn__": "attn",
         "attn_out": "attn_output", "attn_post_norm": "post_attention_norm", "sa_out": "attn_out", "ffn_inp": "attn_out",
         "ffn_norm": "ffn_norm", "ffn_gate": "ffn_gate", "ffn_up": "ffn_up", "ffn_swiglu": "ffn_act",
         "ffn_geglu": "ffn_act", "ffn_gate_par": "ffn_act", "ffn_out": "ffn_down", "ffn_post_norm": "post_ffw_norm",
         "l_out": "ffn_out", "kq_soft_max": "attn.probs"}
PRODUCTS = {"kq": "attn.kq", "kqv": "attn.kqv"}  # later nodes of these names are no products
HEADS = {"Qcur": ("attn_q", "q_rope"), "Kcur": ("attn_k", "k_rope"), "Vcur": ("attn_v", None)}
MOVES = {"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "CONT", "CPY", "DUP", "SET_ROWS"}  # make no new value


def canonical(raw, op):
    """Plumb's name of a node, or None."""
    m = re.fullmatch(r"(\w+)-(\d+)", raw)
    if not m:
        return GLOBAL.get(raw)
    name, layer = m.groups()
    if name in HEADS:
        plain, turned = HEADS[name]
        value = turned if op == "ROPE" else plain if op in ("MUL_MAT", "ADD") else None
    elif name in PRODUCTS:
        value = PRODUCTS[name] if op == "MUL_MAT" else None
    else:
        value = LAYER.get(name)
    return f"blk.{layer}.{value}" if value else None
