// A small llama with random weights in any format, for tests of whole plans.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "program/graph.h"

namespace plumb {

struct TestShape {
  int n_embd = 256, n_head = 4, n_head_kv = 2, head_dim = 64, n_ff = 512, n_vocab = 160, n_layer = 1;
  bool head_norms = false, post_norms = false;  // as qwen3, as gemma3
};

/// Groups of three heads, norms of heads and after blocks.
constexpr TestShape kNormsEverywhere = {.n_embd = 192,
                                        .n_head = 6,
                                        .head_dim = 32,
                                        .n_ff = 320,
                                        .n_layer = 3,
                                        .head_norms = true,
                                        .post_norms = true};
/// No size is a multiple of a tile.
constexpr TestShape kOddSizes = {
    .n_embd = 96, .n_head = 4, .n_head_kv = 2, .head_dim = 24, .n_ff = 160, .n_layer = 2};

/// Ids below TestShape's n_vocab.
inline std::vector<int> test_tokens(int n) {
  std::vector<int> ids;
  for (int i = 0; i < n; ++i) ids.push_back((i * 37 + 3) % 160);
  return ids;
}

class TestModel : public WeightIndex {
 public:
  TestModel(Format format, const TestShape& s) : format_(format), shape_(s) {}

  WeightRef find(const std::string& name) const override {
    if (name.find(".bias") != std::string::npos || name == "output.weight") return {};
    const int64_t q = int64_t(shape_.n_head) * shape_.head_dim,
                  kv = int64_t(shape_.n_head_kv) * shape_.head_dim;
    const auto is = [&](const char* part) { return name.find(part) != std::string::npos; };
    if (is("q_norm") || is("k_norm")) return vector(name, shape_.head_dim);
    if (is("norm")) return vector(name, shape_.n_embd);
    if (is("token_embd")) return matrix(name, shape_.n_vocab, shape_.n_embd);
    if (is("attn_q")) return matrix(name, q, shape_.n_embd);
    if (is("attn_k") || is("attn_v")) return matrix(name, kv, shape_.n_embd);
    if (is("attn_output")) return matrix(name, shape_.n_embd, q);
    if (is("ffn_down")) return matrix(name, shape_.n_embd, shape_.n_ff);
    return matrix(name, shape_.n_ff, shape_.n_embd);
  }

  Program program() const {
    Graph g(*this);
    Value x = g.scale("scaled", g.embed("token_embd"), 1.5);
    const Rope rope{.style = shape_.head_norms ? RopeStyle::half : RopeStyle::pairs, .dims = shape_.head_dim};
    const float scale = 1 / std::sqrt(float(shape_.head_dim)), eps = 1e-5f;
    for (int l = 0; l < shape_.n_layer; ++l) {
      g.block(l);
      Value h = g.rms_norm("attn_norm", x, eps);
      Value q = g.linear("attn_q", h, shape_.n_head), k = g.linear("attn_k", h, shape_.n_head_kv);
      if (shape_.head_norms) q = g.rms_norm("attn_q_norm", q, eps), k = g.rms_norm("attn_k_norm", k, eps);
      const Value v = g.linear("attn_v", h, shape_.n_head_kv);
      Value a = g.attention("attn", g.rope("q_rope", q, rope), g.rope("k_rope", k, rope), v,
                            {.layer = l, .scale = scale, .window = l});
      a = g.linear("attn_output", a);
      if (shape_.post_norms) a = g.rms_norm("post_attention_norm", a, eps);
      x = g.add("attn_out", x, a);
      h = g.rms_norm("ffn_norm", x, eps);
      Value f = g.linear("ffn_down", g.glu("ffn_act", g.linear("ffn_gate", h), g.linear("ffn_up", h),
                                           shape_.post_norms ? Act::gelu_tanh : Act::silu));
      if (shape_.post_norms) f = g.rms_norm("post_ffw_norm", f, eps);
      x = g.add("ffn_out", x, f);
    }
    g.block(-1);
    g.head(g.rms_norm("output_norm", x, eps));
    g.p.n_layer = shape_.n_layer, g.p.n_ctx_train = 64;
    return g.p;
  }

 private:
  WeightRef vector(const std::string& name, int64_t n) const {
    std::vector<uint8_t>& data = data_[name];
    if (data.empty()) {
      for (int64_t i = 0; i < n; ++i) put(data, 1 + 0.2f * uniform(), Format::F32);
    }
    return {name, 1, n, Format::F32, data.data()};
  }

  // Random bytes, with the f16 scales of each block set to values that keep activations near 1.
  WeightRef matrix(const std::string& name, int64_t rows, int64_t columns) const {
    std::vector<uint8_t>& data = data_[name];
    const FormatInfo& f = info(format_);
    while (int64_t(data.size()) < rows * row_bytes(format_, columns)) {
      if (f.block == 1) {
        put(data, uniform() / std::sqrt(float(columns) / 3), format_);
        continue;
      }
      const size_t block = data.size();
      for (int i = 0; i < f.bytes; ++i) data.push_back(uint8_t(random_()));
      const float largest = f.block == 256            ? (format_ == Format::Q6_K ? 32 * 128 : 32 * 32)
                            : format_ == Format::Q8_0 ? 128
                                                      : 12;
      const uint16_t d = float_to_half((1 + 0.5f * uniform()) * 1.7f / largest / std::sqrt(float(columns)));
      const uint16_t m =
          float_to_half(uniform() / 2 / (f.block == 256 ? 32.0f : 1.0f) / std::sqrt(float(columns)));
      std::memcpy(data.data() + block + (format_ == Format::Q6_K ? 208 : 0), &d, 2);
      const bool has_min = format_ == Format::Q4_1 || format_ == Format::Q5_1 || format_ == Format::Q4_K ||
                           format_ == Format::Q5_K;
      if (has_min) std::memcpy(data.data() + block + 2, &m, 2);
    }
    return {name, rows, columns, format_, data.data()};
  }

  float uniform() const { return std::uniform_real_distribution<float>(-1, 1)(random_); }
  static void put(std::vector<uint8_t>& data, float x, Format format) {
    const uint16_t h = format == Format::BF16 ? float_to_bfloat16(x) : float_to_half(x);
    const size_t at = data.size(), bytes = format == Format::F32 ? 4 : 2;
    data.resize(at + bytes);
    std::memcpy(data.data() + at, format == Format::F32 ? static_cast<const void*>(&x) : &h, bytes);
  }

  Format format_;
  TestShape shape_;
  mutable std::mt19937 random_{7};
  mutable std::map<std::string, std::vector<uint8_t>> data_;
};

}  // namespace plumb
