#include "trace/probe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string_view>

#include "gguf/writer.h"
#include "quant/encode.h"

namespace plumb::trace {
namespace {

using M = ProbeModel;

constexpr float kEps = 1e-5f;
// The stream is small enough for a wrong eps to show, and what the layers add is of its size. Larger queries
// and gates would show more faults, but the rounding of activations to 8 bits as well.
constexpr float kStream = 0.008f, kQueries = 0.8f, kValues = 1, kAttention = 0.02f, kGate = 1, kDown = 0.02f;
constexpr int kHeadDim = M::kWidth / M::kHeads;

class ModelWriter {
 public:
  explicit ModelWriter(const ProbeModel& m) : m_(m), random_(m.seed) {}

  void keys() {
    w_.set("general.architecture", std::string_view("llama"));
    w_.set("general.name", std::string_view("plumb probe"));
    w_.set(
        "general.description",
        std::string_view("its greedy continuation of the prompt names the bug of the engine that runs it"));
    w_.set("llama.block_count", uint32_t(M::kLayers));
    w_.set("llama.context_length", uint32_t(512));
    w_.set("llama.embedding_length", uint32_t(M::kWidth));
    w_.set("llama.feed_forward_length", uint32_t(M::kFfn));
    w_.set("llama.attention.head_count", uint32_t(M::kHeads));
    w_.set("llama.attention.head_count_kv", uint32_t(M::kKvHeads));
    w_.set("llama.attention.layer_norm_rms_epsilon", kEps);
    w_.set("llama.rope.dimension_count", uint32_t(kHeadDim));
    w_.set("llama.rope.freq_base", 1000.0f);  // none that an engine could take for granted
    w_.set("llama.vocab_size", uint32_t(M::kVocab));
  }

  void vocabulary(const std::map<int, std::string>& names);
  void weights(const std::vector<float>& head);
  std::vector<uint8_t> bytes() const { return w_.bytes(); }

 private:
  float uniform() { return float(random_() >> 40) * 0x1p-24f; }
  float normal() {  // nearly: bounded, and the same on every machine
    float sum = 0;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum - 6;
  }
  float spread(float octaves) { return std::exp2(octaves * (2 * uniform() - 1)); }

  void vector(const std::string& name, int n) {
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = spread(1);
    add(name, Format::F32, n, 1, x);
  }
  void matrix(const std::string& name, int columns, int rows, float gain);
  void add(const std::string& name, Format format, int columns, int rows, const std::vector<float>& x);

  const ProbeModel& m_;
  std::mt19937_64 random_;
  size_t turn_ = 0;
  GgufWriter w_;
};

void ModelWriter::add(const std::string& name, Format format, int columns, int rows,
                      const std::vector<float>& x) {
  std::vector<uint8_t> data(size_t(rows * row_bytes(format, columns)));
  encode(format, x.data(), int64_t(x.size()), data.data());
  std::vector<int64_t> ne = {columns};
  if (rows > 1) ne.push_back(rows);
  w_.add_tensor(name + ".weight", format, ne, std::move(data));
}

// Each block of 32 has a size and a mean of its own, so that scales and minima matter.
void ModelWriter::matrix(const std::string& name, int columns, int rows, float gain) {
  std::vector<float> x(size_t(columns) * size_t(rows));
  const float unit = gain / std::sqrt(float(columns));
  for (size_t i = 0; i < x.size(); i += 32) {
    const float size = unit * spread(1), mean = size * 0.7f * normal();
    for (size_t j = i; j < i + 32; ++j) x[j] = size * normal() + mean;
  }
  add(name, m_.formats[turn_++ % m_.formats.size()], columns, rows, x);
}

void ModelWriter::vocabulary(const std::map<int, std::string>& names) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<float> scores(3, 0);
  std::vector<int32_t> types = {2, 3, 3};
  const auto add_piece = [&](std::string piece, float score, int32_t type) {
    tokens.push_back(std::move(piece)), scores.push_back(score), types.push_back(type);
  };
  for (int b = 0; b < 256; ++b) add_piece(fmt::format("<0x{:02X}>", b), 0, 6);
  const std::string space = "\u2581";
  for (const char* merged : {"f", "fa", "fau", "faul", "fault"})
    add_piece(space + merged, -float(tokens.size() - 258), 1);
  add_piece(space, -20, 1);
  for (const char letter : std::string_view("whicfaultst?eornd"))
    if (const std::string piece(1, letter); std::find(tokens.begin(), tokens.end(), piece) == tokens.end())
      add_piece(piece, -20 - float(tokens.size() - 258), 1);
  while (tokens.size() < size_t(M::kVocab)) {
    const auto at = names.find(int(tokens.size()));
    const std::string piece = at == names.end() ? fmt::format("unused{}", tokens.size()) : space + at->second;
    add_piece(piece, -1000 - float(tokens.size()), 1);
  }
  w_.set("tokenizer.ggml.model", std::string_view("llama"));
  w_.set("tokenizer.ggml.pre", std::string_view("default"));
  const std::vector<std::string_view> views(tokens.begin(), tokens.end());
  w_.set_array("tokenizer.ggml.tokens", std::span<const std::string_view>(views));
  w_.set_array("tokenizer.ggml.scores", std::span<const float>(scores));
  w_.set_array("tokenizer.ggml.token_type", std::span<const int32_t>(types));
  w_.set("tokenizer.ggml.bos_token_id", uint32_t(1));
  w_.set("tokenizer.ggml.eos_token_id", uint32_t(M::kEnd));
  w_.set("tokenizer.ggml.unknown_token_id", uint32_t(0));
  w_.set("tokenizer.ggml.add_bos_token", true);
  w_.set("tokenizer.ggml.add_eos_token", false);
  w_.set("tokenizer.ggml.add_space_prefix", true);
}

void ModelWriter::weights(const std::vector<float>& head) {
  std::vector<float> x(size_t(M::kVocab) * M::kWidth);
  for (size_t i = 0; i < x.size(); i += M::kWidth) {
    const float size = kStream * spread(1);
    for (size_t j = i; j < i + M::kWidth; ++j) x[j] = size * normal();
  }
  add("token_embd", m_.formats[0], M::kWidth, M::kVocab, x);
  for (int l = 0; l < M::kLayers; ++l) {
    const std::string p = fmt::format("blk.{}.", l);
    vector(p + "attn_norm", M::kWidth);
    matrix(p + "attn_q", M::kWidth, M::kWidth, kQueries);
    matrix(p + "attn_k", M::kWidth, M::kKvHeads * kHeadDim, kQueries);
    matrix(p + "attn_v", M::kWidth, M::kKvHeads * kHeadDim, kValues);
    matrix(p + "attn_output", M::kWidth, M::kWidth, kAttention);
    vector(p + "ffn_norm", M::kWidth);
    matrix(p + "ffn_gate", M::kWidth, M::kFfn, kGate);
    matrix(p + "ffn_up", M::kWidth, M::kFfn, kGate);
    matrix(p + "ffn_down", M::kFfn, M::kWidth, kDown);
  }
  vector("output_norm", M::kWidth);
  add("output", Format::F16, M::kWidth, M::kVocab,
      head.empty() ? std::vector<float>(size_t(M::kVocab) * M::kWidth) : head);
}

}  // namespace

std::vector<uint8_t> ProbeModel::bytes(const std::map<int, std::string>& names,
                                       const std::vector<float>& head) const {
  ModelWriter w(*this);
  w.keys();
  w.vocabulary(names);
  w.weights(head);
  return w.bytes();
}

}  // namespace plumb::trace
