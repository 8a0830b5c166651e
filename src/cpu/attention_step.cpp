// Attention as units of work. Many tokens: units of a kv head and a tile of tokens, the last tile, which sees
// most keys, first. Few tokens: units of a token, a kv head and a chunk, so that threads share a long
// context; whoever finishes a token's last chunk joins them in ascending order.
#include <algorithm>
#include <cstring>

#include "cpu/steps.h"

namespace plumb {

int Steps::attention_tokens(const Program& p, const AttentionStep& s) {
  return std::max(1, kAttentionRows / (p.shape(s.q).heads / p.shape(s.k).heads));
}

/// Tokens of a unit: fewer than the kernel could take if threads would be left without work.
int Steps::attention_tile(const AttentionStep& s) const {
  const int units = 4 * pool.threads(), heads = p.shape(s.k).heads;
  return std::clamp(n(false) * heads / units, 1, attention_tokens(p, s));
}

void Steps::size_attention() {
  for (const Step& step : plan.steps) {
    const auto* s = std::get_if<AttentionStep>(&step.what);
    if (!s) continue;
    const Shape q = p.shape(s->q), kv = p.shape(s->k);
    most_kv_heads = std::max(most_kv_heads, kv.heads);
    partial_stride = std::max(partial_stride, q.heads / kv.heads * partial_floats(kv.dim));
  }
  chunks_done = std::make_unique<std::atomic<int>[]>(size_t(kSplitTokens * most_kv_heads));
}

void Steps::prepare_attention() {
  chunks = 0;
  const int tokens = n(false);
  if (tokens > kSplitTokens || partial_stride == 0) return;
  int most = 0;
  for (int pos : batch->positions) most = std::max(most, pos / kChunk + 1);
  if (most < 2) return;
  const int64_t bytes = int64_t(tokens) * most_kv_heads * most * partial_stride * 4;
  if (bytes > partials.bytes()) partials = Buffer(2 * bytes);
  chunks = most;
}

AttentionArgs Steps::attention_args(const AttentionStep& s, const Unit& u, int kv_head, int first,
                                    const KvHead& head) const {
  const Shape q = p.shape(s.q), kv = p.shape(s.k);
  AttentionArgs a{};
  a.group = q.heads / kv.heads, a.dim = q.dim, a.tokens = 1;
  a.q = f32(s.q) + first * stride(s.q) + kv_head * a.group * q.dim, a.q_stride = stride(s.q);
  a.first_pos = batch->positions[size_t(first)], a.window = s.attention.window;
  a.scale = float(s.attention.scale), a.kv = &head, a.scratch = u.scratch;
  return a;
}

void Steps::attend(const AttentionStep& s, const Unit& u, int kv_head, int first, int count, float* out,
                   int64_t out_stride) {
  const KvHead head = batch->caches[size_t(first)]->head(s.attention.layer, kv_head);
  AttentionArgs a = attention_args(s, u, kv_head, first, head);
  a.tokens = count, a.out = out, a.out_stride = out_stride;
  k.attention(a);
}

void Steps::attend_chunk(const AttentionStep& s, const Unit& u) {
  const Shape q = p.shape(s.q), kv = p.shape(s.k);
  const int chunk = u.index % chunks, pair = u.index / chunks, kv_head = pair % kv.heads, t = pair / kv.heads;
  const int64_t pos = batch->positions[size_t(t)], window = s.attention.window;
  const int first = window > 0 ? int(std::max<int64_t>(0, pos - window + 1) / kChunk) : 0;
  const int last = int(pos / kChunk);
  if (chunk < first || chunk > last) return;
  const KvHead head = batch->caches[size_t(t)]->head(s.attention.layer, kv_head);
  AttentionArgs a = attention_args(s, u, kv_head, t, head);
  float* of_pair = reinterpret_cast<float*>(partials.data()) + int64_t(pair) * chunks * partial_stride;
  a.partial = of_pair + chunk * partial_stride, a.chunk = chunk;
  k.attention(a);
  std::atomic<int>& done = chunks_done[size_t(pair)];
  if (done.fetch_add(1, std::memory_order_acq_rel) != last - first) return;
  done.store(0, std::memory_order_relaxed);  // for the next step, behind the barrier
  const int width = a.group * q.dim, column = kv_head * width;
  const Rows out = rows(s.out);
  k.attention_merge({of_pair + first * partial_stride, partial_stride, last - first + 1, a.group, q.dim,
                     out.f32 + t * out.stride + column});
}

void Steps::operator()(const AttentionStep& s, const Unit& u) {
  if (chunks > 0) return attend_chunk(s, u);
  const Shape q = p.shape(s.q), kv = p.shape(s.k);
  const int tile = attention_tile(s), tiles = (n(false) + tile - 1) / tile;
  const int kv_head = u.index % kv.heads, first = (tiles - 1 - u.index / kv.heads) * tile;
  const int last = std::min(first + tile, n(false)), width = q.heads / kv.heads * q.dim,
            column = kv_head * width;
  const Rows out = rows(s.out);
  for (int t = first; t < last;) {  // consecutive tokens of one sequence at a time
    int end = t + 1;
    while (end < last && batch->caches[size_t(end)] == batch->caches[size_t(t)]) ++end;
    attend(s, u, kv_head, t, end - t, out.f32 + t * out.stride + column, out.stride);
    t = end;
  }
}

}  // namespace plumb
