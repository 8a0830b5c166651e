// Qwen3, dense. Yang et al. 2025, arXiv:2505.09388: as Llama, with RMS-normalised query and key heads.
// GGUF architecture "qwen3".
#include <cmath>

#include "models/models.h"

namespace plumb {

Program qwen3(const Gguf& file, const WeightIndex& weights) {
  const Hyperparameters m = read_hyperparameters(file, RopeStyle::half);
  const double scale = 1 / std::sqrt(double(m.head_dim));
  Graph g(weights);

  Value x = g.embed("token_embd");  // [T, n_embd]
  for (int l = 0; l < m.n_layer; ++l) {
    g.block(l);  // names below are blk.<l>.*
    Value h = g.rms_norm("attn_norm", x, m.eps);
    Value q = g.linear("attn_q", h, m.n_head);     // [T, n_head, head_dim]
    Value k = g.linear("attn_k", h, m.n_head_kv);  // [T, n_head_kv, head_dim]
    Value v = g.linear("attn_v", h, m.n_head_kv);
    q = g.rope("q_rope", g.rms_norm("attn_q_norm", q, m.eps), m.rope);
    k = g.rope("k_rope", g.rms_norm("attn_k_norm", k, m.eps), m.rope);
    Value a = g.attention("attn", q, k, v, {.layer = l, .scale = scale});
    x = g.add("attn_out", x, g.linear("attn_output", a));  // residual
    h = g.rms_norm("ffn_norm", x, m.eps);
    Value gate = g.linear("ffn_gate", h), up = g.linear("ffn_up", h);
    Value f = g.glu("ffn_act", gate, up, Act::silu);
    x = g.add("ffn_out", x, g.linear("ffn_down", f));  // residual
  }
  g.block(-1);
  g.head(g.rms_norm("output_norm", x, m.eps));  // logits [T, vocab]
  return g.p;
}

}  // namespace plumb
