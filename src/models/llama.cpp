// Llama. Touvron et al. 2023, arXiv:2302.13971 and 2307.09288; Grattafiori et al. 2024, arXiv:2407.21783
// (rope_freqs): pre-norm, grouped-query attention, rotary positions, SwiGLU. Also Mistral, SmolLM2,
// TinyLlama. GGUF architecture "llama": its converters permute the rows of attn_q and attn_k so that rope
// turns neighbouring pairs.
#include <cmath>

#include "models/models.h"

namespace plumb {

Program llama(const Gguf& file, const WeightIndex& weights) {
  const Hyperparameters m = read_hyperparameters(file, RopeStyle::pairs);
  const double scale = 1 / std::sqrt(double(m.head_dim));
  Graph g(weights);

  Value x = g.embed("token_embd");  // [T, n_embd]
  Rope rope = m.rope;
  rope.factors = g.optional("rope_freqs", 1, rope.dims / 2);
  for (int l = 0; l < m.n_layer; ++l) {
    g.block(l);  // names below are blk.<l>.*
    Value h = g.rms_norm("attn_norm", x, m.eps);
    Value q = g.rope("q_rope", g.linear("attn_q", h, m.n_head), rope);     // [T, n_head, head_dim]
    Value k = g.rope("k_rope", g.linear("attn_k", h, m.n_head_kv), rope);  // [T, n_head_kv, head_dim]
    Value v = g.linear("attn_v", h, m.n_head_kv);
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
