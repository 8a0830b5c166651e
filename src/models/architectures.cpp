// The table of architectures; a new one adds a line here and a file beside.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "base/error.h"
#include "models/models.h"

namespace plumb {
namespace {

struct Architecture {
  const char* name;
  Program (*build)(const Gguf&, const WeightIndex&);
};
constexpr Architecture kArchitectures[] = {
    {"llama", llama},
    {"qwen2", qwen2},
    {"qwen3", qwen3},
    {"gemma3", gemma3},
};

const Architecture& find_architecture(const Gguf& file) {
  const auto arch = file.text("general.architecture");
  if (!arch) file.missing("general.architecture", "the name of the model's architecture");
  std::vector<std::string> names;
  for (const Architecture& a : kArchitectures) {
    if (a.name == *arch) return a;
    names.emplace_back(a.name);
  }
  file.refuse("general.architecture", "model.architecture", fmt::format("one of {}", fmt::join(names, ", ")),
              printable(*arch));
}

// Integer key <arch>.<key> in [min, max].
class Reader {
 public:
  explicit Reader(const Gguf& file)
      : file_(file), prefix_(std::string(*file.text("general.architecture")) + ".") {}

  int need(const char* key, int64_t min, int64_t max) const {
    const auto v = file_.integer(prefix_ + key, min, max);
    if (!v) file_.missing(prefix_ + key, fmt::format("an integer from {} to {}", min, max));
    return int(*v);
  }
  int count(const char* key, int64_t min, int64_t max, int otherwise) const {
    return int(file_.integer(prefix_ + key, min, max).value_or(otherwise));
  }
  float real(const char* key, double min, double max, double otherwise) const {
    return float(file_.real(prefix_ + key, min, max).value_or(otherwise));
  }
  std::string name(const char* key) const { return prefix_ + key; }

 private:
  const Gguf& file_;
  std::string prefix_;
};

void read_rope_scaling(const Gguf& file, const Reader& r, int n_ctx, Rope& rope) {
  const float legacy = r.real("rope.scale_linear", 0, 1e6, 0);  // older files; 0 means none
  rope.factor = r.real("rope.scaling.factor", 0, 1e6, legacy);
  rope.attn_factor = r.real("rope.scaling.attn_factor", 1e-6, 1e6, 1);
  const std::string_view type =
      file.text(r.name("rope.scaling.type")).value_or(rope.factor > 0 ? "linear" : "none");
  if (rope.factor == 0) rope.factor = 1;
  if (type == "none") {
    rope.factor = 1;
  } else if (type == "linear") {
    if (rope.factor != 1) rope.scaling = RopeScaling::linear;
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::yarn;
    rope.original_context = r.count("rope.scaling.original_context_length", 1, 1 << 30, n_ctx);
    rope.beta_fast = r.real("rope.scaling.yarn_beta_fast", 1e-6, 1e6, 32);
    rope.beta_slow = r.real("rope.scaling.yarn_beta_slow", 1e-6, 1e6, 1);
  } else {
    file.refuse(r.name("rope.scaling.type"), "model.rope_scaling", "one of none, linear, yarn",
                printable(type));
  }
}

}  // namespace

Hyperparameters read_hyperparameters(const Gguf& file, RopeStyle style) {
  const Reader r(file);
  if (r.count("expert_count", 0, 65536, 0) > 0) {
    file.refuse(r.name("expert_count"), "model.experts", "a dense model", "a mixture of experts");
  }
  Hyperparameters h;
  h.n_layer = r.need("block_count", 1, 1024);
  h.n_ctx = r.need("context_length", 1, 1 << 30);
  h.n_embd = r.need("embedding_length", 1, 262144);
  h.n_head = r.need("attention.head_count", 1, 1024);
  h.n_head_kv = r.count("attention.head_count_kv", 1, 1024, h.n_head);
  if (h.n_head % h.n_head_kv != 0) {
    file.refuse(r.name("attention.head_count_kv"), "model.heads",
                fmt::format("a divisor of {} heads", h.n_head), std::to_string(h.n_head_kv));
  }
  h.head_dim = r.count("attention.key_length", 1, 8192, 0);
  if (h.head_dim == 0) {
    if (h.n_embd % h.n_head != 0) {
      file.refuse(r.name("attention.head_count"), "model.heads",
                  fmt::format("a divisor of {} columns", h.n_embd), std::to_string(h.n_head));
    }
    h.head_dim = h.n_embd / h.n_head;
  }
  if (const int v = r.count("attention.value_length", 1, 8192, h.head_dim); v != h.head_dim) {
    file.refuse(r.name("attention.value_length"), "model.heads",
                fmt::format("{}, the size of the keys", h.head_dim), std::to_string(v));
  }
  if (!file.real(r.name("attention.layer_norm_rms_epsilon"), 0, 1)) {
    file.missing(r.name("attention.layer_norm_rms_epsilon"), "a number from 0 to 1");
  }
  h.eps = r.real("attention.layer_norm_rms_epsilon", 0, 1, 0);
  h.rope.style = style;
  h.rope.dims = r.count("rope.dimension_count", 2, 8192, h.head_dim);
  h.rope.freq_base = r.real("rope.freq_base", 1, 1e12, 10000);
  read_rope_scaling(file, r, h.n_ctx, h.rope);
  return h;
}

WeightRef GgufWeights::find(const std::string& name) const {
  const GgufTensor* t = file_.find_tensor(name);
  if (!t) return {};
  return {name, t->rows(), t->columns(), t->format, t->data};
}

Program build_program(const Gguf& file) {
  const Architecture& arch = find_architecture(file);
  Program p;
  try {
    p = arch.build(file, GgufWeights(file));
  } catch (const Error& e) {
    if (!e.where().file.empty()) throw;  // add the file to what the graph said
    Where where = e.where();
    where.file = file.path();
    if (const GgufTensor* t = file.find_tensor(where.tensor)) where.offset = t->offset;
    throw Error({.code = e.code(),
                 .expected = e.expected(),
                 .found = e.found(),
                 .where = where,
                 .remedy = e.remedy()});
  }
  p.arch = arch.name;
  const Reader r(file);
  p.n_layer = r.need("block_count", 1, 1024);
  p.n_ctx_train = r.need("context_length", 1, 1 << 30);
  return p;
}

std::vector<std::string> unused_tensors(const Gguf& file, const Program& program) {
  std::set<std::string_view> used;
  for (const WeightRef& w : program.weights) used.insert(w.name);
  std::vector<std::string> names;
  for (const GgufTensor& t : file.tensors()) {
    if (!used.count(t.name)) names.emplace_back(t.name);
  }
  return names;
}

}  // namespace plumb
