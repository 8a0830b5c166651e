// A: where the numbers of a file are looked for, and which.
#include <algorithm>
#include <numeric>

#include "trace/edits.h"

namespace plumb::trace {
namespace {

constexpr const char* kMatrices = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down";
const std::string kMatricesAndHead = std::string(kMatrices) + " head";

// Element (row, column) of [n_out, n_in] from where [n_in, n_out] would have it, and back.
int64_t transposed(const WeightRef& w, int64_t row, int64_t column) { return column * w.rows + row; }
int64_t transposed_back(const WeightRef& w, int64_t row, int64_t column) {
  const int64_t e = row * w.columns + column;
  return e % w.rows * w.columns + e / w.rows;
}

Edit elements(std::string list, SourceElement source) {
  return [=](Variant& v, double) { return read_elements(v, list, source); };
}

Edit zeroed(std::function<bool(const WeightRef&)> which, float value) {
  return [=](Variant& v, double) -> std::string {
    bool any = false;
    for (WeightRef& w : v.program.weights) {
      if (!which(w)) continue;
      w.read = [=](const WeightRef& ref, int64_t, float* out) { std::fill_n(out, ref.columns, value); };
      v.row_bytes.erase(w.name), any = true;
    }
    return any ? "" : "the model has no such weight";
  };
}

// A number in (-0.04, 0.04) for each element: what uninitialised memory of a sane framework holds.
float noise(int64_t row, int64_t column) {
  return float(counter_uniform(7, uint64_t(row), uint64_t(column)) * 0.08 - 0.04);
}

std::string square_only(Variant& v, double) {
  const std::string list = "attn_q attn_output";
  bool any = false;
  for (Weight w : weights_of(v, list)) {
    const WeightRef& ref = v.program.weights[size_t(w)];
    any = any || ref.rows == ref.columns;
  }
  if (!any) return "neither attn_q nor attn_output is square";
  return read_elements(v, list, [](const WeightRef& w, int64_t r, int64_t c) {
    return w.rows == w.columns ? transposed(w, r, c) : r * w.columns + c;
  });
}

// Bytes of every tensor, or of those of a format, from other places of the file.
std::string moved_bytes(
    Variant& v, const std::function<void(const WeightRef&, int64_t at, int64_t n, uint8_t* out)>& copy) {
  for (WeightRef& w : v.program.weights) {
    if (w.data == nullptr) return "the weights are not at hand";
    const Variant::RowBytes bytes = [copy](const WeightRef& ref, int64_t row, uint8_t* out) {
      const int64_t n = row_bytes(ref.format, ref.columns);
      copy(ref, row * n, n, out);
    };
    w.read = [bytes](const WeightRef& ref, int64_t row, float* out) {
      std::vector<uint8_t> raw(size_t(row_bytes(ref.format, ref.columns)));
      bytes(ref, row, raw.data());
      decode(ref.format, raw.data(), ref.columns, out);
    };
    v.row_bytes[w.name] = bytes;
  }
  return {};
}

// What would lie behind the tensor comes from its beginning.
std::string data_late(Variant& v, double bytes) {
  const int64_t shift = int64_t(bytes);
  return moved_bytes(v, [shift](const WeightRef& w, int64_t at, int64_t n, uint8_t* out) {
    const int64_t all = w.rows * row_bytes(w.format, w.columns);
    for (int64_t from = (at + shift) % all; n > 0; from = 0) {
      const int64_t part = std::min(n, all - from);
      out = std::copy_n(w.data + from, part, out);
      n -= part;
    }
  });
}

std::string absolute_offsets(Variant& v, double) {
  if (v.file->files().size() > 1) return "the model has several files";
  int64_t start = INT64_MAX;
  for (const GgufTensor& t : v.file->tensors()) start = std::min(start, t.offset);
  return moved_bytes(v, [start](const WeightRef& w, int64_t at, int64_t n, uint8_t* out) {
    std::copy_n(w.data + at - start, n, out);
  });
}

// Element order within a row: only the first block, or only the first rows, are there.
Edit first_part(bool rows) {
  return [=](Variant& v, double) {
    return read_with(v, kMatrices, [=](const WeightRef& w, int64_t row, float* out) {
      read_row(w, row, out);
      const int64_t block = std::max(32, info(w.format).block);
      const int64_t kept = rows ? (row < w.rows / 2 ? w.columns : 0) : std::min(block, w.columns);
      std::fill(out + kept, out + w.columns, 0.0f);
    });
  };
}

// The layer whose weights layer l gets.
Edit layers(std::function<int(int l, int n)> order, int least) {
  return [=](Variant& v, double) -> std::string {
    const int n = v.program.n_layer;
    if (n < least) return "the model has only " + std::to_string(n) + " layers";
    return read_other(v, "*", [&](const WeightRef& w) -> std::string {
      const int l = layer_of(w.name);
      if (l < 0) return {};
      return "blk." + std::to_string(order(l, n)) + w.name.substr(w.name.find('.', 4));
    });
  };
}

int string_order(int l, int n) {
  std::vector<int> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [](int a, int b) { return std::to_string(a) < std::to_string(b); });
  return order[size_t(l)];
}

Edit exchanged(std::string a, std::string b) {
  return [=](Variant& v, double) {
    return read_other(v, a + " " + b + " " + a + ".bias " + b + ".bias", [&](const WeightRef& w) {
      const std::string name = short_name(w.name), bias = name.ends_with(".bias") ? ".bias" : "";
      const std::string other = (name == a + bias ? b : a) + (bias.empty() ? ".weight" : bias);
      return w.name.substr(0, w.name.size() - name.size() - (bias.empty() ? 7 : 0)) + other;
    });
  };
}

// Matrices of a layer that other formats hold as one: row r of their concatenation is read at source(r).
Edit fused(std::vector<std::string> names,
           std::function<int64_t(const Sizes&, int64_t rows, int64_t row)> source) {
  return [=](Variant& v, double) -> std::string {
    const Program right = v.program;
    const Sizes sizes = sizes_of(v);
    for (int l = 0; l < right.n_layer; ++l) {
      std::vector<WeightRef> parts;
      int64_t rows = 0;
      for (const std::string& name : names) {
        const WeightRef* w = weight_named(right, "blk." + std::to_string(l) + "." + name + ".weight");
        if (!w) return "the model has no " + name;
        parts.push_back(*w), rows += w->rows;
      }
      int64_t before = 0;
      for (const WeightRef& part : parts) {
        for (WeightRef& w : v.program.weights) {
          if (w.name != part.name) continue;
          w.read = [=](const WeightRef&, int64_t row, float* out) {
            int64_t from = source(sizes, rows, before + row);
            size_t i = 0;
            while (from >= parts[i].rows) from -= parts[i++].rows;
            read_row(parts[i], from, out);
          };
          v.row_bytes.erase(w.name);
        }
        before += part.rows;
      }
    }
    return {};
  };
}

int64_t interleaved(const Sizes&, int64_t rows, int64_t r) {
  return r < rows / 2 ? 2 * r : 2 * (r - rows / 2) + 1;
}
int64_t interleaved_back(const Sizes&, int64_t rows, int64_t r) { return r / 2 + r % 2 * (rows / 2); }

// The row of [q; k; v] that an engine takes for row r where it believes that each kv head has its query
// heads, its key and its value together.
int64_t by_group(const Sizes& s, int64_t, int64_t r) {
  const int64_t d = s.head_dim, group = s.n_head / s.n_head_kv, q = s.n_head * d, kv = s.n_head_kv * d;
  if (r < q) return r / (group * d) * (group + 2) * d + r % (group * d);
  const bool value = r >= q + kv;
  r -= q + (value ? kv : 0);
  return r / d * (group + 2) * d + (group + (value ? 1 : 0)) * d + r % d;
}

// Layers `drop` says are skipped: their readers read what they read.
Edit skipped(std::function<bool(int l, int n)> drop) {
  return [=](Variant& v, double) -> std::string {
    Program& p = v.program;
    bool some = false;
    for (int l = 0; l < p.n_layer; ++l) some = some || !drop(l, p.n_layer);
    if (!some) return "the model has no other layer";
    Value stream = p.nodes[size_t(node_of(p, 0, "attn_norm"))].in[0];
    for (int l = 0; l < p.n_layer; ++l) {
      const Value start = p.nodes[size_t(node_of(p, l, "attn_norm"))].in[0], end = node_of(p, l, "ffn_out");
      for (Value i = start + 1; i < Value(p.nodes.size()); ++i) {
        Node& node = p.nodes[size_t(i)];
        const bool reads = l + 1 == p.n_layer ? layer_of(node.name) < 0 : layer_of(node.name) == l + 1;
        for (Value& in : node.in) {
          if (reads && in == end && drop(l, p.n_layer) && !(l + 1 < p.n_layer && drop(l + 1, p.n_layer)))
            in = stream;
        }
      }
      if (!drop(l, p.n_layer)) stream = end;
    }
    return {};
  };
}
Edit identity_layers(std::function<bool(int l, int n)> drop) {
  return [=](Variant& v, double) -> std::string {
    const int n = v.program.n_layer;
    return zeroed(
        [=](const WeightRef& w) {
          return layer_of(w.name) >= 0 && drop(layer_of(w.name), n) &&
                 listed("attn_output ffn_down", short_name(w.name));
        },
        0)(v, 0);
  };
}

bool last_layer(int l, int n) { return l == n - 1; }
bool first_layer(int l, int) { return l == 0; }
bool last_two(int l, int n) { return l >= n - 2; }

bool is_matrix_of(const WeightRef& w, int layer, const char* name) {
  return layer_of(w.name) == layer && short_name(w.name) == name;
}

std::string column_order_of_embedding(Variant& v, double) {
  weights_of(v, "head");  // a tied head stays right
  return read_elements(v, "token_embd", transposed);
}
std::string row_order_of_embedding(Variant& v, double) {
  weights_of(v, "head");
  return read_elements(v, "token_embd", transposed_back);
}

std::string head_of(Variant& v, bool tied, std::function<std::string(Variant&)> edit) {
  if (sizes_of(v).tied != tied) return tied ? "the model has a head of its own" : "the head is tied";
  return edit(v);
}

}  // namespace

void add_layout_faults(std::vector<Fault>& all) {
  const auto bytes = [](Variant& v, double p) { return data_late(v, p); };
  const std::vector<Fault> faults = {
#include "trace/faults_layout.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
