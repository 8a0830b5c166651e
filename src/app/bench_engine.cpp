#include "app/bench_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <map>

#include "base/error.h"

namespace plumb {
namespace {

// general.file_type, as llama.cpp numbers the mixes; where it is absent or unknown, the commonest format.
std::string file_type(const Gguf& file) {
  static const std::map<int64_t, const char*> kNames = {
      {0, "F32"},     {1, "F16"},     {2, "Q4_0"},    {3, "Q4_1"},    {7, "Q8_0"},
      {8, "Q5_0"},    {9, "Q5_1"},    {10, "Q2_K"},   {11, "Q3_K_S"}, {12, "Q3_K_M"},
      {13, "Q3_K_L"}, {14, "Q4_K_S"}, {15, "Q4_K_M"}, {16, "Q5_K_S"}, {17, "Q5_K_M"},
      {18, "Q6_K"},   {25, "IQ4_NL"}, {30, "IQ4_XS"}, {32, "BF16"}};
  if (const auto type = file.integer("general.file_type", 0, 1 << 20)) {
    if (const auto found = kNames.find(*type); found != kNames.end()) return found->second;
  }
  std::map<Format, int64_t> bytes;
  for (const GgufTensor& t : file.tensors()) bytes[t.format] += t.bytes;
  const auto most = std::max_element(bytes.begin(), bytes.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "?" : info(most->first).name;
}

}  // namespace

BenchEngine::BenchEngine(const Model& model, const RunnerOptions& options) : model_(model) {
  if (options.backend == Backend::cpu) {
    sequences_ = std::make_unique<Sequences>(model, options, 1);
  } else {
    runner_ = Runner::make(model, options);
  }
  if (!model.file().flag("tokenizer.ggml.add_bos_token").value_or(true)) return;
  bos_ = int(model.file().integer("tokenizer.ggml.bos_token_id", 0, model.n_vocab() - 1).value_or(-1));
}

void BenchEngine::add(std::span<const int> tokens) {
  if (sequences_) {
    const Sequences::Piece piece = {0, tokens};
    sequences_->decode({&piece, 1}, [](int, int64_t, std::span<const float>) {});
  } else {
    runner_->decode(tokens);
  }
  length_ += int64_t(tokens.size());
}

void BenchEngine::prompt(int n, int batch) {
  std::vector<int> tokens;
  for (int done = 0; done < n; done += int(tokens.size())) {
    tokens.resize(size_t(std::min(batch, n - done)));
    for (int& t : tokens) t = draw();
    if (length_ == 0) tokens[0] = first();
    add(tokens);
  }
}

void BenchEngine::answer(int n) {
  int token = first();
  for (int i = 0; i < n; ++i) {
    add({&token, 1});
    token = draw();
  }
}

void BenchEngine::truncate(int64_t length) {
  if (sequences_) sequences_->truncate(0, length);
  if (runner_) runner_->truncate(length);
  length_ = length;
}

int64_t count_parameters(const Gguf& file) {
  int64_t n = 0;
  for (const GgufTensor& t : file.tensors()) n += t.elements();
  return n;
}

int64_t tensor_bytes(const Gguf& file) {
  int64_t n = 0;
  for (const GgufTensor& t : file.tensors()) n += t.bytes;
  return n;
}

std::string describe_model(const Gguf& file) {
  const double n = double(count_parameters(file));
  const std::string size = n < 1e9 ? fmt::format("{:.0f}M", n * 1e-6) : fmt::format("{:.1f}B", n * 1e-9);
  return fmt::format("{} {} {}", printable(file.text("general.architecture").value_or("?"), 20), size,
                     file_type(file));
}

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t at = line.find(": ");
    if (at != std::string::npos) return line.substr(at + 2);
  }
  return "unknown";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%FT%TZ", &parts)};
}

}  // namespace plumb
