// Weights of GGUF and safetensors files under one set of names.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "base/limits.h"
#include "trace/trace.h"
#include "trace/weights.h"

namespace plumb::trace {
namespace {

constexpr std::pair<const char*, const char*> kModuleNames[] = {
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
};

bool exists(const std::string& path) {
  struct stat s{};
  return ::stat(path.c_str(), &s) == 0;
}

Weight weight_of(std::string name, Format format, std::vector<int64_t> ne, const uint8_t* data) {
  Weight w{.name = name, .raw = std::move(name), .format = format, .ne = std::move(ne), .data = data};
  if (!w.ne.empty()) w.columns = w.ne[0];
  for (size_t i = 1; i < w.ne.size(); ++i) w.rows *= w.ne[i];
  return w;
}

}  // namespace

int64_t Weight::stored_row(int64_t r) const {
  if (head_dim == 0) return r;  // else pairs (2j, 2j + 1) of a head are (j, j + d / 2) there
  const int64_t in = r % head_dim;
  return r - in + in / 2 + in % 2 * (head_dim / 2);
}

void Weight::row(int64_t r, float* out) const {
  decode(format, data + stored_row(r) * row_bytes(format, columns), columns, out);
  if (plus != 0) std::for_each(out, out + columns, [this](float& x) { x += plus; });
}

std::string gguf_name(const std::string& name, bool gemma) {
  std::string_view rest = name;
  for (std::string_view prefix : {"language_model.", "model.language_model."}) {
    if (rest.starts_with(prefix)) rest.remove_prefix(prefix.size());
  }
  if (rest.starts_with("model.")) rest.remove_prefix(6);
  if (rest == "embed_tokens.weight") return "token_embd.weight";
  if (rest == "norm.weight") return "output_norm.weight";
  if (rest == "lm_head.weight") return "output.weight";
  if (!rest.starts_with("layers.")) return name;
  rest.remove_prefix(7);
  const size_t digits = rest.find('.'), last = rest.rfind('.');
  if (digits == std::string_view::npos || last <= digits) return name;
  const std::string_view layer = rest.substr(0, digits), end = rest.substr(last);
  const std::string_view module = rest.substr(digits + 1, last - digits - 1);
  if (module == "post_attention_layernorm")
    return fmt::format("blk.{}.{}{}", layer, gemma ? "post_attention_norm" : "ffn_norm", end);
  for (const auto& [theirs, ours] : kModuleNames) {
    if (module == theirs) return fmt::format("blk.{}.{}{}", layer, ours, end);
  }
  return name;
}

Weights Weights::open(const std::string& path) {
  Weights w;
  w.path_ = path;
  if (is_folder(path)) {
    w.open_folder(path);
  } else if (path.ends_with(".safetensors")) {
    w.open_shard(path);
  } else {
    w.open_gguf(path);
    return w;
  }
  const bool gemma = std::any_of(w.tensors_.begin(), w.tensors_.end(), [](const Weight& t) {
    return t.raw.find("pre_feedforward_layernorm") != std::string::npos;
  });
  std::set<std::string> names;
  for (Weight& t : w.tensors_) {
    t.name = gguf_name(t.raw, gemma);
    if (!names.insert(t.name).second)
      throw Error({.code = "weights.twice",
                   .expected = "each tensor once",
                   .found = printable(t.name) + " again",
                   .where = {.file = path, .tensor = printable(t.raw)}});
  }
  return w;
}

void Weights::open_gguf(const std::string& path) {
  gguf_ = Gguf::open(path);
  arch_ = std::string(gguf_->text("general.architecture").value_or(""));
  for (const GgufTensor& t : gguf_->tensors())
    tensors_.push_back(
        weight_of(std::string(t.name), t.format, {t.ne, t.ne + std::max(t.n_dims, 1)}, t.data));
}

void Weights::open_folder(const std::string& path) {
  const std::string index = path + "/model.safetensors.index.json";
  if (!exists(index)) return open_shard(path + "/model.safetensors");
  const Json json = parse_json(read_file(index, kMaxJsonBytes), index);
  const Json* map = json.find("weight_map");
  if (!map || !map->object())
    throw Error({.code = "weights.index",
                 .expected = "an object that says where each tensor is",
                 .found = map ? "another value" : "none",
                 .where = {.file = index, .key = "/weight_map"}});
  std::set<std::string> shards;
  for (const auto& [name, file] : *map->object()) {
    if (!file.text() || file.text()->empty() || file.text()->find('/') != std::string::npos)
      throw Error({.code = "weights.index",
                   .expected = "the name of a file in this folder",
                   .found = "another value",
                   .where = {.file = index, .key = printable(name)}});
    shards.insert(*file.text());
  }
  for (const std::string& shard : shards) open_shard(fmt::format("{}/{}", path, shard));
}

void Weights::open_shard(const std::string& path) {
  files_.push_back(MappedFile::open(path));
  for (const ShardTensor& t : parse_shard(files_.back().bytes(), path)) {
    const FormatInfo* format = find_format(t.dtype);
    PLUMB_CHECK(format != nullptr);  // parse_shard knows F16, BF16, F32 and F64 alone
    tensors_.push_back(weight_of(t.name, format->format, {t.shape.rbegin(), t.shape.rend()}, t.bytes.data()));
  }
}

const Weight* Weights::find(const std::string& name) const {
  const auto at =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const Weight& t) { return t.name == name; });
  return at == tensors_.end() ? nullptr : &*at;
}

void Weights::adapt_to(const Weights& other) {
  PLUMB_CHECK(other.gguf_.has_value());
  const Gguf& g = *other.gguf_;
  arch_ = other.arch_;
  const auto heads = [&](const char* key) {
    const GgufValue* v = g.find(arch_ + key);
    return v && !v->is_array ? g.integer(arch_ + key, 1, kMaxHeads).value_or(0) : int64_t(0);
  };
  const int64_t n_head = heads(".attention.head_count"), kv = heads(".attention.head_count_kv");
  for (Weight& t : tensors_) {
    const bool q = t.name.find(".attn_q.") != std::string::npos,
               k = t.name.find(".attn_k.") != std::string::npos;
    const int64_t n = q ? n_head : kv > 0 ? kv : n_head, rows = t.ne.size() > 1 ? t.rows : 0;
    if (arch_ == "llama" && (q || k) && n > 0 && rows % (2 * n) == 0) t.head_dim = rows / n;
    if (arch_ == "gemma3" && t.name.ends_with("norm.weight")) t.plus = 1;
  }
}

}  // namespace plumb::trace
