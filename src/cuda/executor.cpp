#include "cuda/executor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/math.h"
#include "program/ops.h"

namespace plumb::cuda {
namespace {

int act_code(Act act) { return act == Act::silu ? 1 : 2; }
int rounding_code(Rounding r) { return r == Rounding::int8 ? 0 : r == Rounding::refined ? 1 : 2; }

bool float_format(int format) { return format == kF32 || format == kF16 || format == kBF16; }

// Of n rows of codes, in one buffer.
int64_t codes_bytes(int64_t n, int64_t columns) {
  return n * (2 * columns + columns / 32 * 8 + (columns + 127) / 128 * kRefinedBytes);
}
Codes codes_at(uint8_t* memory, int64_t n, int64_t columns) {
  Codes c{};
  c.refined = memory, memory += n * ((columns + 127) / 128) * kRefinedBytes;
  c.high = memory, memory += n * columns;
  c.low = memory, memory += n * columns;
  c.scales = reinterpret_cast<float*>(memory);
  return c;
}

}  // namespace

Executor::Executor(const Plan& plan, const SequenceState& state, bool together)
    : plan_(plan), p_(*plan.program), state_(state), api_(state.api), together_(together) {
  arena_ = DeviceBuffer(api_, state.context, plan.arena_bytes, "activations");
  ids_ = DeviceBuffer(api_, state.context, int64_t(kIds) * 4 * plan.max_tokens, "token ids");
  if (!state.f32) find_joined_norms();
  if (together) find_fused_heads();
  make_rope_tables();
  make_scratch();
}

float* Executor::at(Value v) const {
  if (moved_.count(v)) return attended_.floats();
  const int64_t offset = v < 0 ? -1 : plan_.places[size_t(v)];
  return offset < 0 ? nullptr : reinterpret_cast<float*>(arena_.data() + offset);
}

// A plain norm whose output only matrices read, and nobody who observes.
void Executor::find_joined_norms() {
  if (observing()) return;
  for (const Step& s : plan_.steps) {
    const auto* r = std::get_if<RowStep>(&s.what);
    if (s.wanted && !together_) continue;  // it also gathers rows
    if (r && r->norm >= 0 && r->post < 0 && r->residual < 0 && r->sum < 0 && r->scale == 1 &&
        p_.shape(r->out).heads == 1) {
      joined_[r->out] = r;
    }
  }
  for (const Step& s : plan_.steps) {
    if (const auto* l = std::get_if<LinearStep>(&s.what)) {
      joined_.erase(l->residual);
      continue;
    }
    for (Value v : s.values) {
      for (Value in : p_.nodes[size_t(v)].in) joined_.erase(in);
    }
  }
  joined_.erase(p_.output);
}

// Heads of q, k and v right before the attention that reads them.
void Executor::find_fused_heads() {
  int64_t floats = 0;
  for (size_t i = 0; i + 1 < plan_.steps.size(); ++i) {
    const auto* h = std::get_if<HeadsStep>(&plan_.steps[i].what);
    const auto* a = std::get_if<AttentionStep>(&plan_.steps[i + 1].what);
    using Store = HeadsStep::Store;
    if (!h || !a || h->parts.size() != 3 || h->parts[0].out != a->q || h->layer != a->attention.layer)
      continue;
    if (h->parts[0].store != Store::none || h->parts[1].store != Store::k || h->parts[2].store != Store::v)
      continue;
    fused_[a] = h, made_.insert(h), moved_.insert(a->out);
    floats = std::max(floats, plan_.max_tokens * stride(a->out));
  }
  attended_ = DeviceBuffer(api_, state_.context, floats * 4, "activations");
}

void Executor::make_rope_tables() {
  tables_.resize(plan_.tables.size());
  for (const Step& s : plan_.steps) {
    const auto* t = std::get_if<RopeTableStep>(&s.what);
    if (!t) continue;
    const Rope& rope = t->rope;
    const int half = rope.dims / 2;
    std::vector<float> factors(size_t(half), 1.0f), table(size_t(state_.n_ctx) * size_t(rope.dims));
    if (rope.factors >= 0) {
      const WeightRef& w = p_.weights[size_t(rope.factors)];
      decode(w.format, w.data, half, factors.data());
    }
    for (int i = 0; i < half; ++i) {
      const ops::Turn turn = ops::rope_turn(rope, double(factors[size_t(i)]), 1, i);
      for (int64_t pos = 0; pos < state_.n_ctx; ++pos) {
        double sine = 0, cosine = 0;
        sine_cosine(double(pos) * turn.angle, &sine, &cosine);
        table[size_t(pos * rope.dims + i)] = float(cosine * turn.magnitude);
        table[size_t(pos * rope.dims + half + i)] = float(sine * turn.magnitude);
      }
    }
    const int64_t bytes = int64_t(table.size()) * 4;
    DeviceBuffer& b = tables_[size_t(t->table)] =
        DeviceBuffer(api_, state_.context, bytes, "rotary positions");
    cuda::check(api_.upload(state_.context, b.data(), table.data(), bytes), "copy rotary positions");
  }
}

void Executor::make_scratch() {
  int64_t columns = 0, glu_floats = 0, partial = 0, counters = 0;
  const int64_t n = plan_.max_tokens, octets = (n + 7) / 8 * 8;
  for (const Step& s : plan_.steps) {
    if (const auto* l = std::get_if<LinearStep>(&s.what)) {
      columns = std::max<int64_t>(columns, p_.shape(l->x).size());
      if (l->glu >= 0) glu_floats = std::max(glu_floats, n * stride(l->glu));
    }
    if (const auto* a = std::get_if<AttentionStep>(&s.what); a && together_) {
      const Shape q = p_.shape(a->q);
      partial = std::max(partial, n * q.heads * 2 * max_chunks() * (q.dim + 2) * 4);
      counters = std::max<int64_t>(counters, n * q.heads * 4);
    }
  }
  if (n > 1) {
    x16_ = DeviceBuffer(api_, state_.context, (n + 127) / 128 * 128 * ((columns + 63) / 64 * 64) * 2,
                        "f16 activations");
    x16_scale_ = DeviceBuffer(api_, state_.context, n * 4, "f16 activations");
    if (!state_.f16 || together_)
      codes_ = DeviceBuffer(api_, state_.context, codes_bytes(octets, columns), "rounded activations");
  }
  gate_ = DeviceBuffer(api_, state_.context, glu_floats * 4, "activations");
  up_ = DeviceBuffer(api_, state_.context, glu_floats * 4, "activations");
  partial_ = DeviceBuffer(api_, state_.context, partial, "attention");
  counter_ = DeviceBuffer(api_, state_.context, counters, "attention");
  if (counters > 0) cuda::check(api_.zero(state_.context, counter_.data(), counters), "clear memory");
}

Executor::Call Executor::upload(const Rows& rows) {
  const size_t n = rows.tokens.size(), max = size_t(plan_.max_tokens);
  PLUMB_CHECK(n >= 1 && n <= max && rows.positions.size() == n && rows.wanted.size() <= n);
  std::vector<int> all(size_t(kIds) * max);
  const auto put = [&](Ids part, std::span<const int> from) {
    std::copy(from.begin(), from.end(), all.begin() + int64_t(size_t(part) * max));
  };
  put(kTokens, rows.tokens), put(kPositions, rows.positions), put(kSequences, rows.sequences);
  put(kWanted, rows.wanted);
  Call call{.n = int(n), .wanted = int(rows.wanted.size())};
  int furthest = 0;
  for (size_t i = 0; i < n; ++i) {
    PLUMB_CHECK(rows.positions[i] < state_.n_ctx);
    furthest = std::max(furthest, rows.positions[i]);
    if (i == 0 || (!rows.sequences.empty() && rows.sequences[i] != rows.sequences[i - 1])) {
      all[size_t(kRuns) * max + size_t(call.runs++)] = int(i);
    }
    int& length = all[size_t(kRunRows) * max + size_t(call.runs - 1)];
    call.longest = std::max(call.longest, ++length);
  }
  PLUMB_CHECK(!together_ || call.runs == int(n));
  if (observing() || (together_ && call.wanted > 0)) call.wanted = call.n;
  call.chunks = (furthest + kAttentionChunk) / kAttentionChunk;
  cuda::check(api_.upload(state_.context, ids_.data(), all.data(), int64_t(all.size()) * 4),
              "copy token ids");
  return call;
}

void Executor::run(const Step& step, const Call& call) {
  error_ = nullptr;
  std::visit([&](const auto& what) { (*this)(what, step, call); }, step.what);
  check(error_, step);
}

void Executor::check(const char* error, const Step& step) const {
  if (!error) return;
  std::vector<std::string> names;
  for (Value v : step.values) names.push_back(p_.nodes[size_t(v)].name);
  cuda::check(error, fmt::format("launch {}", fmt::join(names, ", ")));
}

void Executor::operator()(const EmbedStep& s, const Step&, const Call& c) {
  error_ = api_.embed(state_.context, {state_.weights.matrix(s.table), ids(kTokens), c.n, float(s.scale),
                                       at(s.out), stride(s.out)});
}

void Executor::operator()(const RowStep& s, const Step& step, const Call& c) {
  if (joined_.count(s.out)) return;
  const Shape shape = p_.shape(s.out);
  RowOp op{};
  op.x = at(s.x) + s.first, op.x_stride = stride(s.x), op.scale = float(s.scale);
  op.post = state_.weights.vector(s.post), op.post_eps = s.post_eps;
  op.residual = at(s.residual), op.residual_stride = stride(s.residual);
  op.sum = at(s.sum), op.sum_stride = stride(s.sum);
  op.norm = state_.weights.vector(s.norm), op.eps = s.eps;
  op.out = at(s.out), op.out_stride = stride(s.out);
  if (!op.out)
    op.out = op.sum, op.out_stride = op.sum_stride, op.sum = nullptr, op.norm = nullptr;  // observed
  op.rows = step.wanted && !together_ && !observing() ? ids(kWanted) : nullptr;
  op.n = step.wanted ? c.wanted : c.n;
  op.heads = s.norm >= 0 ? shape.heads : 1, op.dim = shape.size() / op.heads;
  error_ = api_.row(state_.context, op);
}

bool Executor::one_kernel(const LinearStep& s) const {
  return state_.weights.matrix(s.parts[0].w).format == state_.weights.matrix(s.parts[1].w).format;
}

void Executor::glu(Act act, const float* gate, const float* up, Value out, int n) {
  error_ = api_.glu(state_.context, {gate, up, at(out), stride(out), act_code(act), n});
}

// Parts of one format beside each other share a launch, three at most.
void Executor::one_token(const LinearStep& s, const LinearOp& base) {
  const auto target = [&](size_t i) {
    if (s.glu >= 0) return i == 0 ? gate_.floats() : up_.floats();
    return at(s.sum >= 0 ? s.sum : s.parts[i].out);
  };
  LinearOp op = base;
  if (s.glu >= 0 && one_kernel(s)) {
    op.glu = act_code(s.act), op.parts = 2;
    for (size_t i = 0; i < 2; ++i) {
      op.w[i] = state_.weights.matrix(s.parts[i].w), op.bias[i] = state_.weights.vector(s.parts[i].bias);
    }
    op.y[0] = at(s.glu);
    error_ = api_.linear(state_.context, op);
    return;
  }
  for (size_t i = 0; i < s.parts.size() && !error_; ++i) {
    op.w[op.parts] = state_.weights.matrix(s.parts[i].w),
    op.bias[op.parts] = state_.weights.vector(s.parts[i].bias);
    op.y[op.parts++] = target(i);
    const bool more = i + 1 < s.parts.size() && op.parts < 3 &&
                      state_.weights.matrix(s.parts[i + 1].w).format == op.w[0].format;
    if (more) continue;
    error_ = api_.linear(state_.context, op);
    op.parts = 0;
  }
  if (s.glu >= 0 && !error_) glu(s.act, gate_.floats(), up_.floats(), s.glu, 1);
}

// The input in the forms that the parts read.
void Executor::convert(const LinearStep& s, LinearOp& op) {
  if (state_.f32) return;
  const int columns = p_.shape(s.x).size();
  uint16_t* const x16 = reinterpret_cast<uint16_t*>(x16_.data());
  op.x16 = x16, op.x16_scale = x16_scale_.floats();
  const auto half = [&](int octets) {
    error_ = api_.half(state_.context,
                       {op.x, op.x_stride, x16, x16_scale_.floats(), op.n, columns, op.norm, op.eps, octets});
  };
  if (op.own_order) return half(1);
  bool floats = false, codes = false;
  for (const LinearStep::Part& part : s.parts) {
    (op.rounding == kHalves || float_format(state_.weights.matrix(part.w).format) ? floats : codes) = true;
  }
  op.codes = codes_at(codes_.data(), op.n <= kFewTokens ? (op.n + 7) / 8 * 8 : op.n, columns);
  if (codes) {
    error_ = api_.round(state_.context,
                        {op.x, op.x_stride, op.codes, op.n, columns, op.rounding, op.norm, op.eps});
  }
  if (floats && !error_) half(0);
}

bool Executor::in_halves(const LinearStep& s) const {
  return !state_.f32 && std::all_of(s.parts.begin(), s.parts.end(), [&](const LinearStep::Part& part) {
    return (state_.f16 && !together_) || float_format(state_.weights.matrix(part.w).format);
  });
}

bool Executor::few(const LinearStep& s, int n) const {
  return !state_.f32 && (!state_.f16 || together_) && n <= kFewTokens &&
         std::none_of(s.parts.begin(), s.parts.end(), [&](const LinearStep::Part& part) {
           return float_format(state_.weights.matrix(part.w).format);
         });
}

// One launch, whatever the formats; gate and up together if they have the same, and a kernel for it.
void Executor::all_parts(const LinearStep& s, LinearOp op) {
  const bool apart = few(s, op.n) && op.rounding == rounding_code(Rounding::refined);
  op.glu = s.glu >= 0 && one_kernel(s) && !apart ? act_code(s.act) : 0;
  for (const LinearStep::Part& part : s.parts) {
    const Value out = s.glu >= 0 ? s.glu : s.sum >= 0 ? s.sum : part.out;
    op.w[op.parts] = state_.weights.matrix(part.w), op.bias[op.parts] = state_.weights.vector(part.bias);
    op.y[op.parts] = s.glu < 0 || op.glu ? at(out) : op.parts == 0 ? gate_.floats() : up_.floats();
    op.y_stride[op.parts++] = stride(out);
  }
  error_ = api_.linear(state_.context, op);
  if (s.glu >= 0 && !op.glu && !error_) glu(s.act, gate_.floats(), up_.floats(), s.glu, op.n);
}

void Executor::many_tokens(const LinearStep& s, LinearOp op) {
  convert(s, op);
  if (error_) return;
  if ((in_halves(s) || few(s, op.n)) && s.parts.size() <= 3) return all_parts(s, op);
  for (size_t i = 0; i < s.parts.size() && !error_; ++i) {
    const Value out = s.glu >= 0 ? s.glu : s.sum >= 0 ? s.sum : s.parts[i].out;
    op.parts = 1, op.w[0] = state_.weights.matrix(s.parts[i].w),
    op.bias[0] = state_.weights.vector(s.parts[i].bias);
    op.y[0] = s.glu < 0 ? at(out) : i == 0 ? gate_.floats() : up_.floats(), op.y_stride[0] = stride(out);
    error_ = api_.linear(state_.context, op);
  }
  if (s.glu >= 0 && !error_) glu(s.act, gate_.floats(), up_.floats(), s.glu, op.n);
}

void Executor::operator()(const LinearStep& s, const Step& step, const Call& c) {
  LinearOp op{};
  op.n = step.wanted ? c.wanted : c.n, op.rounding = state_.f32 ? kNoRounding : rounding_code(s.rounding);
  const auto norm = joined_.find(s.x);
  const Value x = norm == joined_.end() ? s.x : norm->second->x;
  op.x = at(x), op.x_stride = stride(x);
  if (norm != joined_.end()) op.norm = state_.weights.vector(norm->second->norm), op.eps = norm->second->eps;
  op.residual = at(s.residual), op.residual_stride = stride(s.residual);
  // One token of a larger plan takes the matrix-vector kernels too: rows of the arena are the same. Several
  // sequences together are too few tokens for tiles of halves: their matrices round to 16 bits.
  if (state_.f16 && (op.n == 1 || !together_)) op.rounding = kHalves;
  op.own_order = state_.f16 && few(s, op.n);
  op.n == 1 && !state_.f32 ? one_token(s, op) : many_tokens(s, op);
}

void Executor::make_part(const HeadsStep::Part& part, int layer, HeadsOp::Part& to) const {
  const Shape shape = p_.shape(part.out);
  const PageLayout::Layer cache = state_.layout.layers[size_t(layer)];
  to.x = at(part.x), to.x_stride = stride(part.x);
  if (part.out != part.x) to.y = at(part.out), to.y_stride = stride(part.out);
  to.norm = state_.weights.vector(part.norm), to.eps = part.eps;
  if (part.table >= 0) to.table = tables_[size_t(part.table)].floats();
  to.cache = part.store == HeadsStep::Store::none ? -1
             : part.store == HeadsStep::Store::k  ? cache.k
                                                  : cache.v;
  to.pairs = part.style == RopeStyle::pairs, to.dims = part.dims, to.heads = shape.heads, to.dim = shape.dim;
}

void Executor::operator()(const HeadsStep& s, const Step&, const Call& c) {
  if (made_.count(&s)) return;
  HeadsOp op{};
  op.positions = ids(kPositions), op.pages = {state_.tables.get(), ids(kSequences), max_chunks()};
  op.cache_f32 = state_.kv_f32, op.n = c.n;
  PLUMB_CHECK(s.parts.size() <= 3);
  for (const HeadsStep::Part& part : s.parts) make_part(part, s.layer, op.part[op.parts++]);
  error_ = api_.heads(state_.context, op);
}

void Executor::operator()(const AttentionStep& s, const Step&, const Call& c) {
  const Shape q = p_.shape(s.q), k = p_.shape(s.k);
  const PageLayout::Layer layer = state_.layout.layers[size_t(s.attention.layer)];
  AttentionOp op{};
  op.q = at(s.q), op.q_stride = stride(s.q);
  op.k = layer.k, op.v = layer.v, op.positions = ids(kPositions);
  op.pages = {state_.tables.get(), plan_.max_tokens == 1 ? nullptr : ids(kSequences), max_chunks()};
  if (!together_)
    op.runs = ids(kRuns), op.runs_apart = plan_.max_tokens, op.n_runs = c.runs, op.longest = c.longest;
  op.out = at(s.out), op.out_stride = stride(s.out);
  op.partial = partial_.floats(), op.counter = reinterpret_cast<unsigned*>(counter_.data());
  op.scale = float(s.attention.scale), op.cache_f32 = state_.kv_f32, op.window = s.attention.window;
  op.heads = q.heads, op.kv_heads = k.heads, op.dim = q.dim, op.n = c.n, op.chunks = c.chunks;
  op.halves = state_.f16 && !state_.kv_f32;
  if (const auto fused = fused_.find(&s); fused != fused_.end()) {
    op.fused = 1;
    for (size_t i = 0; i < 3; ++i) make_part(fused->second->parts[i], s.attention.layer, op.part[i]);
  }
  error_ = api_.attention(state_.context, op);
}

void Executor::operator()(const GluStep& s, const Step&, const Call& c) {
  glu(s.act, at(s.gate), at(s.up), s.out, c.n);
}

void Executor::operator()(const GatherStep& s, const Step& step, const Call& c) {
  const std::vector<int>& sizes = std::get<Gather>(p_.nodes[size_t(s.out)].op).sizes;
  GatherOp op{};
  op.n = step.wanted ? c.wanted : c.n, op.to = at(s.out), op.to_stride = stride(s.out);
  int first = 0;
  for (size_t r = 0; r < sizes.size(); first += sizes[r++]) {
    op.part[op.parts++] = {ranks_[r]->at(s.x), ranks_[r]->stride(s.x), first, sizes[r]};
  }
  error_ = api_.gather(state_.context, op);
}

}  // namespace plumb::cuda
