// Tiny random models of every architecture, written as GGUF into memory or a file. Tests only.
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/half.h"
#include "gguf/writer.h"
#include "quant/encode.h"

namespace plumb::testing {

struct TinyOptions {
  std::string arch = "llama";
  Format format = Format::F32;  // of the matrices
  uint64_t seed = 1;
  std::string nan_in = {};  // this tensor's first number is NaN
  int n_vocab_out = 0;      // rows of "output"; 0: tied to token_embd
  int width = 64;           // of the stream; from 256 on all formats divide its rows
  int layers = 3;
  int n_head_kv = 2;          // of four
  bool encoded = false;       // matrices are Gaussian and encoded, not random codes
  bool rope_factors = false;  // has rope_freqs
  float matrix_size = 1, norm_size = 1;
  std::vector<std::pair<std::string, float>> reals = {};  // <arch>.<key>
  uint32_t rope_dims = 0;                                 // 0: the file does not say
  bool vocabulary = false;                                // has a tokenizer: characters of ASCII
};

class TinyModel {
 public:
  static constexpr int kVocab = 50, kEmbd = 64, kLayers = 3, kContext = 600;

  explicit TinyModel(TinyOptions options) : o_(std::move(options)), random_(o_.seed) {
    keys();
    matrix("token_embd", embd(), kVocab);
    for (int l = 0; l < o_.layers; ++l) layer("blk." + std::to_string(l) + ".");
    vector("output_norm.weight", embd(), o_.norm_size);
    if (o_.n_vocab_out > 0) matrix("output", embd(), o_.n_vocab_out);
    if (o_.rope_factors) vector("rope_freqs.weight", head_dim() / 2, 2);
  }

  std::vector<uint8_t> bytes() const { return writer_.bytes(); }
  void write(const std::string& path) const { writer_.write(path); }

 private:
  bool is(const char* arch) const { return o_.arch == arch; }
  int embd() const { return o_.width; }
  int head_dim() const { return is("gemma3") ? embd() / 2 : embd() / 4; }
  int n_ff() const { return embd() == kEmbd ? 96 : embd(); }

  void keys() {
    writer_.set("general.architecture", std::string_view(o_.arch));
    const auto key = [&](const char* k) { return o_.arch + "." + k; };
    writer_.set(key("block_count"), uint32_t(o_.layers));
    writer_.set(key("context_length"), uint32_t(kContext));
    writer_.set(key("embedding_length"), uint32_t(embd()));
    writer_.set(key("attention.head_count"), uint32_t(4));
    writer_.set(key("attention.head_count_kv"), uint32_t(o_.n_head_kv));
    writer_.set(key("attention.layer_norm_rms_epsilon"), 1e-5f);
    if (o_.rope_dims > 0) writer_.set(key("rope.dimension_count"), o_.rope_dims);
    for (const auto& [name, value] : o_.reals) writer_.set(key(name.c_str()), value);
    if (o_.vocabulary) vocabulary();
    if (!is("gemma3")) return;
    writer_.set(key("attention.key_length"), uint32_t(head_dim()));
    writer_.set(key("attention.value_length"), uint32_t(head_dim()));
    writer_.set(key("attention.sliding_window"), uint32_t(8));
    writer_.set(key("attention.sliding_window_pattern"), uint32_t(3));
  }

  void vocabulary() {
    std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "\u2581"};
    for (char c = 'A'; int(tokens.size()) < kVocab; ++c) tokens.emplace_back(1, c);
    std::vector<int32_t> types(tokens.size(), 1);
    types[0] = 2, types[1] = types[2] = 3;
    const std::vector<float> scores(tokens.size(), 0);
    writer_.set("tokenizer.ggml.model", std::string_view("llama"));
    writer_.set_array(
        "tokenizer.ggml.tokens",
        std::span<const std::string_view>(std::vector<std::string_view>(tokens.begin(), tokens.end())));
    writer_.set_array("tokenizer.ggml.scores", std::span<const float>(scores));
    writer_.set_array("tokenizer.ggml.token_type", std::span<const int32_t>(types));
  }

  float number() {
    double sum = 0;
    for (int i = 0; i < 12; ++i) sum += double(random_() >> 11) * 0x1p-53;
    return float(sum - 6);
  }

  void add(const std::string& name, Format format, std::vector<int64_t> ne, std::vector<uint8_t> data) {
    if (name == o_.nan_in) {  // the first number: an f32, or the f16 scale of a block
      const uint32_t nan = format == Format::F32 ? 0x7fc00000u : 0x7e00u;
      std::memcpy(data.data(), &nan, format == Format::F32 ? 4 : 2);
    }
    writer_.add_tensor(name, format, ne, std::move(data));
  }

  void vector(const std::string& name, int n, float middle) {
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = middle + 0.1f * number();
    const auto* p = reinterpret_cast<const uint8_t*>(x.data());
    add(name, Format::F32, {n}, {p, p + x.size() * 4});
  }

  // About 1 / sqrt(columns) in size.
  void matrix(const std::string& name, int columns, int rows) {
    std::vector<uint8_t> data(size_t(rows * row_bytes(o_.format, columns)));
    const float size = o_.matrix_size / std::sqrt(float(columns));
    if (o_.format == Format::F32) {
      for (size_t i = 0; i < data.size(); i += 4) {
        const float x = size * number();
        std::memcpy(&data[i], &x, 4);
      }
    } else if (o_.encoded) {
      std::vector<float> x(static_cast<size_t>(rows) * static_cast<size_t>(columns));
      for (float& v : x) v = size * number();
      plumb::encode(o_.format, x.data(), int64_t(x.size()), data.data());
    } else {  // blocks that begin with an f16 scale
      const float step = o_.format == Format::Q8_0 ? size / 74 : size / 4.6f;
      for (uint8_t& b : data) b = uint8_t(random_());
      for (size_t i = 0; i < data.size(); i += size_t(info(o_.format).bytes)) {
        const uint16_t d = float_to_half(step * (0.5f + float(random_() % 1024) / 1024));
        std::memcpy(&data[i], &d, 2);
      }
    }
    add(name + ".weight", o_.format, {columns, rows}, std::move(data));
  }

  void layer(const std::string& p) {
    const int q = 4 * head_dim(), kv = o_.n_head_kv * head_dim();
    vector(p + "attn_norm.weight", embd(), o_.norm_size);
    matrix(p + "attn_q", embd(), q);
    matrix(p + "attn_k", embd(), kv);
    matrix(p + "attn_v", embd(), kv);
    if (is("qwen2")) {
      vector(p + "attn_q.bias", q, 0), vector(p + "attn_k.bias", kv, 0), vector(p + "attn_v.bias", kv, 0);
    }
    if (is("qwen3") || is("gemma3")) {
      vector(p + "attn_q_norm.weight", head_dim(), 1), vector(p + "attn_k_norm.weight", head_dim(), 1);
    }
    matrix(p + "attn_output", q, embd());
    if (is("gemma3"))
      vector(p + "post_attention_norm.weight", embd(), 1), vector(p + "post_ffw_norm.weight", embd(), 1);
    vector(p + "ffn_norm.weight", embd(), o_.norm_size);
    matrix(p + "ffn_gate", embd(), n_ff());
    matrix(p + "ffn_up", embd(), n_ff());
    matrix(p + "ffn_down", n_ff(), embd());
  }

  TinyOptions o_;
  std::mt19937_64 random_;
  GgufWriter writer_;
};

/// A tiny model in a file of its own, removed at the end.
class TinyFile {
 public:
  explicit TinyFile(const TinyOptions& options) {
    static int count = 0;
    path_ = (std::filesystem::temp_directory_path() /
             ("plumb_tiny_" + std::to_string(::getpid()) + "_" + std::to_string(count++) + ".gguf"))
                .string();
    TinyModel(options).write(path_);
  }
  TinyFile(const TinyFile&) = delete;
  ~TinyFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace plumb::testing
