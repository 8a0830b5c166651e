// Weights that are read otherwise.
#include <algorithm>
#include <numeric>

#include "trace/edits.h"

namespace plumb::trace {
namespace {

constexpr const char* kNoWeight = "the model has no such weight";

bool is_head(const Program& p, Weight w) {
  const auto* head = std::get_if<Linear>(&p.nodes[size_t(p.output)].op);
  return head && head->w == w;
}

// Bytes of a row as they are read so far.
void raw_row(const Variant::RowBytes& now, const WeightRef& w, int64_t row, uint8_t* out) {
  if (now) return now(w, row, out);
  const int64_t bytes = row_bytes(w.format, w.columns);
  std::copy_n(w.data + row * bytes, bytes, out);
}

}  // namespace

std::shared_ptr<const std::vector<float>> Tensors::get(const WeightRef& w) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < kept_.size(); ++i) {
    if (kept_[i].first != w.data) continue;
    std::rotate(kept_.begin(), kept_.begin() + int64_t(i), kept_.begin() + int64_t(i) + 1);
    return kept_[0].second;
  }
  auto all = std::make_shared<std::vector<float>>(size_t(w.rows * w.columns));
  for (int64_t r = 0; r < w.rows; ++r) read_row(w, r, all->data() + r * w.columns);
  if (kept_.size() == 2) kept_.pop_back();
  kept_.insert(kept_.begin(), {w.data, all});
  return all;
}

const WeightRef* weight_named(const Program& p, std::string_view name) {
  for (const WeightRef& w : p.weights) {
    if (w.name == name) return &w;
  }
  return nullptr;
}

std::vector<Weight> weights_of(Variant& v, std::string_view list) {
  Program& p = v.program;
  if (listed(list, "head") && list != "*" && sizes_of(v).tied) {  // a tied head becomes a weight of its own
    Linear& head = std::get<Linear>(p.nodes[size_t(p.output)].op);
    p.weights.push_back(p.weights[size_t(head.w)]);
    p.weights.back().name = "output.weight";
    head.w = Weight(p.weights.size()) - 1;
  }
  std::vector<Weight> found;
  for (size_t i = 0; i < p.weights.size(); ++i) {
    const std::string name = short_name(p.weights[i].name);
    if (listed(list, name) || (listed(list, "head") && is_head(p, Weight(i)))) found.push_back(Weight(i));
  }
  return found;
}

std::string read_with(Variant& v, std::string_view list, ReadRow read) {
  const std::vector<Weight> found = weights_of(v, list);
  for (Weight i : found) {
    WeightRef& w = v.program.weights[size_t(i)];
    const WeightRef before = w;
    w.read = [=](const WeightRef&, int64_t row, float* out) { read(before, row, out); };
    v.row_bytes.erase(w.name);
  }
  return found.empty() ? kNoWeight : "";
}

std::string read_elements(Variant& v, std::string_view list, SourceElement source) {
  auto tensors = std::make_shared<Tensors>();
  return read_with(v, list, [=](const WeightRef& w, int64_t row, float* out) {
    const auto all = tensors->get(w);
    for (int64_t c = 0; c < w.columns; ++c) out[c] = (*all)[size_t(source(w, row, c))];
  });
}

std::string read_rows(Variant& v, std::string_view list, SourceRow source) {
  for (Weight i : weights_of(v, list)) {
    WeightRef& w = v.program.weights[size_t(i)];
    const WeightRef before = w;
    const auto at = v.row_bytes.find(w.name);
    const Variant::RowBytes bytes = at == v.row_bytes.end() ? Variant::RowBytes() : at->second;
    if (w.rows == 1) {  // a vector: its elements are the rows
      w.read = [=](const WeightRef&, int64_t, float* out) {
        std::vector<float> x(size_t(before.columns));
        read_row(before, 0, x.data());
        WeightRef as_rows = before;
        as_rows.rows = before.columns;
        for (int64_t c = 0; c < before.columns; ++c) out[c] = x[size_t(source(as_rows, c))];
      };
      v.row_bytes.erase(w.name);
      continue;
    }
    w.read = [=](const WeightRef&, int64_t row, float* out) { read_row(before, source(before, row), out); };
    if (!before.read || bytes) {
      v.row_bytes[w.name] = [=](const WeightRef&, int64_t row, uint8_t* out) {
        raw_row(bytes, before, source(before, row), out);
      };
    }
  }
  return weights_of(v, list).empty() ? kNoWeight : "";
}

std::string read_columns(Variant& v, std::string_view list, SourceColumn source) {
  return read_with(v, list, [=](const WeightRef& w, int64_t row, float* out) {
    std::vector<float> x(size_t(w.columns));
    read_row(w, row, x.data());
    for (int64_t c = 0; c < w.columns; ++c) out[c] = x[size_t(source(w, c))];
  });
}

std::string read_changed(Variant& v, std::string_view list, std::function<float(float)> change) {
  return read_with(v, list, [=](const WeightRef& w, int64_t row, float* out) {
    read_row(w, row, out);
    for (int64_t c = 0; c < w.columns; ++c) out[c] = change(out[c]);
  });
}

std::string read_other(Variant& v, std::string_view list,
                       std::function<std::string(const WeightRef&)> choose) {
  const Program right = v.program;
  bool any = false;
  for (Weight i : weights_of(v, list)) {
    WeightRef& w = v.program.weights[size_t(i)];
    const std::string name = choose(w);
    if (name.empty() || name == w.name) continue;
    const WeightRef* other = weight_named(right, name);
    if (!other || other->rows != w.rows || other->columns != w.columns) continue;
    const WeightRef source = *other;
    w.read = [=](const WeightRef&, int64_t row, float* out) { read_row(source, row, out); };
    v.row_bytes.erase(w.name);
    if (source.format == w.format && !source.read) {
      v.row_bytes[w.name] = [=](const WeightRef&, int64_t row, uint8_t* out) {
        raw_row({}, source, row, out);
      };
    }
    any = true;
  }
  return any ? "" : "the model has no other weight of that shape";
}

Edit qk_rows(std::function<int(int dims, int j)> source, std::string list) {
  return [=](Variant& v, double) {
    const Sizes sizes = sizes_of(v);
    std::string all;
    for (const char* name : {"attn_q", "attn_k"}) {
      if (!listed(list, name)) continue;
      for (const char* part : {"", ".bias", "_norm"})
        all += (all.empty() ? "" : " ") + std::string(name) + part;
    }
    return read_rows(v, all, [=](const WeightRef&, int64_t row) {
      const int64_t in = row % sizes.head_dim;
      return in < sizes.rope_dims ? row - in + source(sizes.rope_dims, int(in)) : row;
    });
  };
}

std::string scale_q(Variant& v, double factor) {
  const auto times = [f = float(factor)](float x) { return x * f; };
  if (node_of(v.program, 0, "attn_q_norm") >= 0) return read_changed(v, "attn_q_norm", times);
  return read_changed(v, "attn_q attn_q.bias", times);
}

bool is_local(const Program& p, int layer) {
  for (const Node& n : p.nodes) {
    const auto* a = std::get_if<Attention>(&n.op);
    if (a && a->layer == layer) return a->window > 0;
  }
  return false;
}

}  // namespace plumb::trace
