#include "cpu/steps.h"

#include <algorithm>
#include <cstring>

#include "base/overload.h"
#include "cpu/linear/linear.h"

namespace plumb {

Rows Steps::rows(Value v) const {
  const int64_t at = plan.places[size_t(v)];
  return {at < 0 ? nullptr : reinterpret_cast<float*>(arena.data() + at), row_stride(p.shape(v).size())};
}

const float* Steps::f32(Value v) const { return v < 0 ? nullptr : rows(v).f32; }

int64_t Steps::scratch_bytes(const Plan& plan) {
  const Program& p = *plan.program;
  int64_t most = 0;
  for (const Step& s : plan.steps) {
    int64_t need = 0;
    if (const auto* l = std::get_if<LinearStep>(&s.what)) {
      need = linear_scratch(plan, *l).end;
    } else if (const auto* a = std::get_if<AttentionStep>(&s.what)) {
      need = attention_scratch_bytes(p.shape(a->k).dim);
    } else if (const auto* r = std::get_if<RowStep>(&s.what)) {
      need = row_stride(p.shape(r->out).size()) * 4;
    } else if (const auto* h = std::get_if<HeadsStep>(&s.what)) {
      for (const HeadsStep::Part& part : h->parts)
        need = std::max(need, row_stride(p.shape(part.out).size()) * 4);
    }
    most = std::max(most, need + 256);
  }
  return (most + 4095) / 4096 * 4096;
}

// Groups of 16 rows per unit: about 64 KB of weights for few tokens, 32 rows for many; an even number.
// Few tokens: 64 KB of weights and at least what the kernel reads at once, as evenly as threads can share.
int Steps::units_of(const LinearStep& s, const LinearStep::Part& part, bool wanted) const {
  const int pairs = groups_of(part) / 2;
  if (n(wanted) > kTokenTile) return pairs;
  const WeightRef& w = p.weights[size_t(s.parts[0].w)];
  const int64_t bytes = std::max<int64_t>(1, 32 * row_bytes(w.format, w.columns));
  const int each = int(std::clamp<int64_t>((1 << 16) / bytes, 2, kUnitRows / 32));
  const int units = (pairs + each - 1) / each, threads = pool.threads();
  return std::min(pairs, (units + threads - 1) / threads * threads);
}

int Steps::count(const Step& step) const {
  const int tokens = n(step.wanted);
  if (tokens == 0) return 0;  // nobody wants logits of this piece
  return std::visit(Overload{
                        [&](const LinearStep& s) {
                          int units = 0;
                          for (const LinearStep::Part& part : s.parts) {
                            units += units_of(s, part, step.wanted);
                            if (s.glu >= 0) break;  // both parts of a unit at once
                          }
                          return units;
                        },
                        [&](const AttentionStep& s) {
                          const int tile = attention_tile(s), heads = p.shape(s.k).heads;
                          return chunks > 0 ? tokens * heads * chunks : (tokens + tile - 1) / tile * heads;
                        },
                        [](const TapStep&) { return 1; },
                        [](const GatherStep&) { return 1; },
                        [&](const auto&) { return tokens; },
                    },
                    step.what);
}

void Steps::run(size_t i, int unit, int thread) {
  const Step& step = plan.steps[i];
  const Unit u{i, unit, thread, scratch.data() + thread * scratch_stride, step.wanted};
  std::visit([&](const auto& s) { (*this)(s, u); }, step.what);
}

void Steps::operator()(const RopeTableStep& s, const Unit& u) {
  const int half = s.rope.dims / 2;
  float* cosine = table(s.table) + int64_t(u.index) * s.rope.dims;
  rope_row(frequencies[size_t(s.table)], batch->positions[size_t(u.index)], cosine, cosine + half);
}

void Steps::operator()(const EmbedStep& s, const Unit& u) {
  const WeightRef& w = p.weights[size_t(s.table)];
  const Rows out = rows(s.out);
  float* y = out.f32 + u.index * out.stride;
  decode(w.format, w.data + batch->tokens[size_t(u.index)] * row_bytes(w.format, w.columns), w.columns, y);
  if (s.scale == 1) return;
  const float scale = float(s.scale);
  for (int64_t i = 0; i < w.columns; ++i) y[i] *= scale;
}

RowArgs Steps::row_args(const RowStep& s) const {
  const Shape shape = p.shape(s.out);
  RowArgs a{};
  a.x = f32(s.x) + s.first, a.x_stride = stride(s.x), a.scale = s.scale;
  a.post = weights.vector(s.post), a.post_eps = s.post_eps;
  a.residual = f32(s.residual), a.residual_stride = stride(s.residual);
  if (s.sum >= 0) a.sum = rows(s.sum).f32, a.sum_stride = stride(s.sum);
  a.norm = weights.vector(s.norm), a.eps = s.eps;
  a.out = rows(s.out);
  // A value with heads is normalised head by head; a plain row has one.
  a.heads = s.norm >= 0 ? shape.heads : 1, a.dim = shape.size() / a.heads;
  return a;
}

void Steps::operator()(const RowStep& s, const Unit& u) {
  RowArgs a = row_args(s);
  if (!a.out.f32) a.out = {reinterpret_cast<float*>(u.scratch), 0};
  k.row(a, u.wanted ? batch->wanted[size_t(u.index)] : u.index, u.index);
}

void Steps::operator()(const HeadsStep& s, const Unit& u) {
  const size_t t = size_t(u.index);
  for (const HeadsStep::Part& part : s.parts) {
    const Shape shape = p.shape(part.out);
    const float* x = f32(part.x) + u.index * stride(part.x);
    const float* y = x;
    if (part.out != part.x) {
      HeadArgs a{};
      const Rows out = rows(part.out);
      a.x = x, a.y = out.f32 ? out.f32 + u.index * out.stride : reinterpret_cast<float*>(u.scratch);
      a.norm = weights.vector(part.norm), a.eps = part.eps;
      if (part.table >= 0) {
        a.cosine = table(part.table) + u.index * part.dims;
        a.sine = a.cosine + part.dims / 2;
      }
      a.style = part.style, a.dims = part.dims, a.heads = shape.heads, a.dim = shape.dim;
      k.head(a);
      y = a.y;
    }
    if (part.store == HeadsStep::Store::none) continue;
    for (int h = 0; h < shape.heads; ++h) {
      const KvHead kv = batch->caches[t]->head(s.layer, h);
      (part.store == HeadsStep::Store::k ? k.store_k : k.store_v)(kv, batch->positions[t], y + h * shape.dim);
    }
  }
}

void Steps::operator()(const GluStep& s, const Unit& u) {
  const int64_t at = u.index * stride(s.out);
  k.glu(s.act, f32(s.gate) + at, f32(s.up) + at, rows(s.out).f32 + at, int(stride(s.out)));
}

void Steps::operator()(const TapStep& s, const Unit& u) {
  if (!batch->tap || failure) return;
  try {
    (*batch->tap)({s.v, f32(s.v), n(u.wanted), stride(s.v), u.wanted});
  } catch (...) {
    failure = std::current_exception();  // no thread of the pool may throw
  }
}

void Steps::operator()(const GatherStep& s, const Unit& u) {
  if (failure) return;
  try {
    const std::vector<int>& sizes = std::get<Gather>(p.nodes[size_t(s.out)].op).sizes;
    const Rows out = rows(s.out);
    all_gather_rows(*batch->comm, f32(s.x), stride(s.x), n(u.wanted), sizes, out.f32, out.stride);
  } catch (...) {
    failure = std::current_exception();
  }
}

}  // namespace plumb
