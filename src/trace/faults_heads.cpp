// E: projections and heads.
#include <cmath>

#include "trace/edits.h"

namespace plumb::trace {
namespace {

Edit zero_bias(std::string list) {
  return [=](Variant& v, double) { return read_changed(v, list, [](float) { return 0.0f; }); };
}

Edit qk_norm(std::function<void(WrongNorm&)> change) {
  return on<RmsNorm>("attn_q_norm attn_k_norm", [change](RmsNorm& n) { change(n.wrong); });
}

// A norm without weight behind q and k, where the model has none.
std::string qk_norm_added(Variant& v, double) {
  Program& p = v.program;
  if (node_of(p, 0, "attn_q_norm") >= 0) return "the model has such norms";
  for (int l = 0; l < p.n_layer; ++l) {
    RmsNorm norm = std::get<RmsNorm>(p.nodes[size_t(node_of(p, l, "attn_norm"))].op);
    norm.wrong = {.weight = NormWeight::absent};
    insert_behind(p, node_of(p, l, "attn_q"), norm);
    insert_behind(p, node_of(p, l, "attn_k"), norm);
  }
  return {};
}

std::string norm_after_rope(Variant& v, double) {
  Program& p = v.program;
  if (node_of(p, 0, "attn_q_norm") < 0) return "the model has no norms of q and k";
  for (int l = 0; l < p.n_layer; ++l) {
    for (const auto& [norm, rope] :
         {std::pair("attn_q_norm", "q_rope"), std::pair("attn_k_norm", "k_rope")}) {
      Node& first = p.nodes[size_t(node_of(p, l, norm))];
      Node& second = p.nodes[size_t(node_of(p, l, rope))];
      std::swap(first.op, second.op), std::swap(first.name, second.name);
    }
  }
  return {};
}

// The matrices as if heads had another size: rows from the start of the memory, rows of another length.
void read_flat(Variant& v, std::string_view name, int64_t rows, int64_t columns) {
  auto tensors = std::make_shared<Tensors>();
  for (WeightRef& w : v.program.weights) {
    if (short_name(w.name) != name) continue;
    const WeightRef before = w;
    w.rows = rows, w.columns = columns;
    w.read = [=](const WeightRef&, int64_t row, float* out) {
      const auto all = tensors->get(before);
      std::copy_n(all->begin() + row * columns, columns, out);
    };
    v.row_bytes.erase(w.name);
  }
}

std::string head_dim_by_width(Variant& v, double) {
  const Sizes s = sizes_of(v);
  const int d = s.n_embd / s.n_head;
  if (d >= s.head_dim) return "a head is no larger than width / heads";
  Program& p = v.program;
  for (Node& n : p.nodes) {
    const std::string name = short_name(n.name);
    if (listed("attn_q attn_k attn_v attn_q_norm attn_k_norm q_rope k_rope", name)) n.shape.dim = d;
    if (name == "attn") n.shape.dim = s.n_head * d;
    if (auto* a = std::get_if<Attention>(&n.op)) a->scale = 1 / std::sqrt(double(d));
    if (auto* r = std::get_if<Rope>(&n.op)) r->dims = std::min(r->dims, d);
  }
  read_flat(v, "attn_q", s.n_head * d, s.n_embd), read_flat(v, "attn_k", s.n_head_kv * d, s.n_embd);
  read_flat(v, "attn_v", s.n_head_kv * d, s.n_embd), read_flat(v, "attn_output", s.n_embd, s.n_head * d);
  return {};
}

std::string narrow_ffn(Variant& v, double) {
  const Sizes s = sizes_of(v);
  const int n_ff = s.n_ff * 2 / 3 / 32 * 32;
  if (n_ff == 0) return "the FFN is too narrow";
  for (Node& n : v.program.nodes) {
    if (listed("ffn_gate ffn_up ffn_act", short_name(n.name))) n.shape.dim = n_ff;
  }
  read_flat(v, "ffn_gate", n_ff, s.n_embd), read_flat(v, "ffn_up", n_ff, s.n_embd);
  read_flat(v, "ffn_down", s.n_embd, n_ff);
  return {};
}

// Rows as Transformers' converters permute them for `heads` heads of d: new row (h, j, half) is old row
// (h, half, j). And back.
int64_t permuted_row(int64_t d, int64_t r) { return r / d * d + r % 2 * (d / 2) + r % d / 2; }
int64_t restored_row(int64_t d, int64_t r) { return r / d * d + r % (d / 2) * 2 + r % d / (d / 2); }

std::string is_llama(const Variant& v) {
  return v.program.arch == "llama" ? "" : "files of this architecture are not permuted";
}

// Keys permuted as if they had as many heads as queries; `back` undoes it.
Edit keys_permuted_as_queries(bool back) {
  return [=](Variant& v, double) -> std::string {
    const Sizes s = sizes_of(v);
    const int64_t right = s.head_dim, wrong = int64_t(s.n_head_kv) * s.head_dim / s.n_head;
    if (s.n_head == s.n_head_kv) return "it has as many kv heads as heads";
    if (wrong % 2 != 0) return "its heads cannot be halved";
    return read_rows(v, "attn_k attn_k.bias", [=](const WeightRef&, int64_t r) {
      return back ? restored_row(wrong, permuted_row(right, r)) : restored_row(right, permuted_row(wrong, r));
    });
  };
}

// Rows [head, dim] as if they lay [dim, head]; and back.
Edit heads_inside(std::string list, bool back) {
  return [=](Variant& v, double) {
    const int64_t d = sizes_of(v).head_dim;
    return read_rows(v, list, [=](const WeightRef& w, int64_t r) {
      const int64_t heads = w.rows / d;
      return back ? r % heads * d + r / heads : r % d * heads + r / d;
    });
  };
}
Edit output_columns(bool back) {
  return [=](Variant& v, double) {
    const Sizes s = sizes_of(v);
    return read_columns(v, "attn_output", [=](const WeightRef&, int64_t c) {
      return back ? c % s.n_head * s.head_dim + c / s.n_head : c % s.head_dim * s.n_head + c / s.head_dim;
    });
  };
}

Edit attention(std::function<void(Attention&)> change) { return on<Attention>("*", change); }

std::string one_head(Variant& v, double) {
  const Sizes s = sizes_of(v);
  each<Attention>(v.program, "*", [&](Attention& a, Node&) {
    a.wrong.one_head = true, a.scale = 1 / std::sqrt(double(s.n_head * s.head_dim));
  });
  return s.n_head > 1 ? "" : "it has one head";
}

std::string grouped(const Variant& v) {
  const Sizes s = sizes_of(v);
  return s.n_head_kv > 1 ? "" : "it has one kv head";
}

const char* const kQkv = "attn_q attn_k attn_v attn_q.bias attn_k.bias attn_v.bias";

}  // namespace

void add_head_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_heads.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
