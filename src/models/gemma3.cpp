// Gemma 3, text. Gemma team 2025, arXiv:2503.19786: five layers that see a sliding window for each that sees
// everything, with a rope base of their own; norms before and after each branch; normalised queries and keys;
// GeGLU; the embedding scaled by sqrt(n_embd). GGUF architecture "gemma3"; its converters store norm weights
// with the 1 already added.
#include <fmt/format.h>

#include <cmath>

#include "models/models.h"

namespace plumb {
namespace {

// Layer l sees a window unless it is the last of its group.
bool is_local(int l, int pattern) { return l % pattern < pattern - 1; }

// Query scale: head_dim ^ -1/2, but (n_embd / n_head) ^ -1/2 in the 27B, which 62 layers tell
// (query_pre_attn_scalar of the published configurations; GGUF does not store it).
double query_scale(const Hyperparameters& m) {
  return 1 / std::sqrt(double(m.n_layer == 62 ? m.n_embd / m.n_head : m.head_dim));
}

void refuse_softcap(const Gguf& file) {
  const char* key = "gemma3.final_logit_softcapping";
  const double cap = file.real(key, 0, 1e9).value_or(0);
  if (cap != 0) file.refuse(key, "model.softcap", "0: Gemma 3 caps no logits", fmt::format("{}", cap));
}

}  // namespace

Program gemma3(const Gguf& file, const WeightIndex& weights) {
  refuse_softcap(file);
  const Hyperparameters m = read_hyperparameters(file, RopeStyle::half);
  const int window = int(file.integer("gemma3.attention.sliding_window", 0, 1 << 30).value_or(0));
  const int pattern = int(file.integer("gemma3.attention.sliding_window_pattern", 1, 1024).value_or(6));
  Rope local = m.rope;  // window layers are never stretched
  local.scaling = RopeScaling::none;
  local.factor = 1;
  local.freq_base = float(file.real("gemma3.rope.freq_base_swa", 1, 1e12).value_or(10000));
  const double scale = query_scale(m);
  Graph g(weights);

  Value x = g.scale("inp_scaled", g.embed("token_embd"), std::sqrt(double(m.n_embd)));  // [T, n_embd]
  for (int l = 0; l < m.n_layer; ++l) {
    const bool sees_window = window > 0 && is_local(l, pattern);
    const Rope& rope = sees_window ? local : m.rope;
    g.block(l);  // names below are blk.<l>.*
    Value h = g.rms_norm("attn_norm", x, m.eps);
    Value q = g.linear("attn_q", h, m.n_head);     // [T, n_head, head_dim]
    Value k = g.linear("attn_k", h, m.n_head_kv);  // [T, n_head_kv, head_dim]
    Value v = g.linear("attn_v", h, m.n_head_kv);
    q = g.rope("q_rope", g.rms_norm("attn_q_norm", q, m.eps), rope);
    k = g.rope("k_rope", g.rms_norm("attn_k_norm", k, m.eps), rope);
    Value a = g.attention("attn", q, k, v, {.layer = l, .scale = scale, .window = sees_window ? window : 0});
    x = g.add("attn_out", x,
              g.rms_norm("post_attention_norm", g.linear("attn_output", a), m.eps));  // residual
    h = g.rms_norm("ffn_norm", x, m.eps);
    Value gate = g.linear("ffn_gate", h), up = g.linear("ffn_up", h);
    Value f = g.glu("ffn_act", gate, up, Act::gelu_tanh);
    x = g.add("ffn_out", x, g.rms_norm("post_ffw_norm", g.linear("ffn_down", f), m.eps));  // residual
  }
  g.block(-1);
  g.head(g.rms_norm("output_norm", x, m.eps));  // logits [T, vocab]
  return g.p;
}

}  // namespace plumb
