#include "engine/logit_base.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "engine/perplexity.h"

namespace plumb {
namespace {

constexpr std::string_view kOurs = "PLUMBKL1", kLlama = "_logits_";
constexpr size_t kHeader = 20;
constexpr int kMost = 1 << 24;

}  // namespace

void LogitBase::refuse(const char* code, std::string expected, std::string found, int64_t offset) const {
  throw Error({.code = code,
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.file = path_, .offset = offset}});
}

int32_t LogitBase::int_at(size_t offset) const {
  int32_t x;
  std::memcpy(&x, file_.bytes().data() + offset, 4);
  return x;
}

LogitBase::LogitBase(const std::string& path) : path_(path), file_(MappedFile::open(path)) {
  const std::span<const uint8_t> bytes = file_.bytes();
  if (bytes.size() < kHeader)
    refuse("base.truncated", "at least 20 bytes", std::to_string(bytes.size()), int64_t(bytes.size()));
  const std::string_view magic(reinterpret_cast<const char*>(bytes.data()), 8);
  quantised_ = magic == kLlama;
  if (magic != kOurs && !quantised_) {
    refuse("base.format", fmt::format("{} or {} of llama-perplexity", kOurs, kLlama), printable(magic), 0);
  }
  n_ctx_ = int_at(8), n_vocab_ = int_at(12), chunks_ = int_at(16);
  const auto check = [&](const char* what, int value, int least, int64_t offset) {
    if (value < least || value > kMost)
      refuse("base.format", fmt::format("{} from {} to {}", what, least, kMost), std::to_string(value),
             offset);
  };
  check("n_ctx", n_ctx_, 4, 8), check("n_vocab", n_vocab_, 1, 12), check("chunks", chunks_, 1, 16);
  row_bytes_ = quantised_ ? 2 * (2 * ((size_t(n_vocab_) + 1) / 2) + 4) : 4 * size_t(n_vocab_);
  int64_t tokens = 0, rows = 0, size = 0;
  if (__builtin_mul_overflow(int64_t(n_ctx_) * chunks_, 4, &tokens) ||
      __builtin_mul_overflow(int64_t(chunks_) * rows_scored(n_ctx_), int64_t(row_bytes_), &rows) ||
      __builtin_add_overflow(int64_t(kHeader) + tokens, rows, &size) || size != int64_t(bytes.size())) {
    refuse("base.truncated",
           fmt::format("{} chunks of {} tokens with {} logits each", chunks_, n_ctx_, n_vocab_),
           fmt::format("{} bytes", bytes.size()), int64_t(bytes.size()));
  }
  for (size_t at = kHeader; at < kHeader + size_t(tokens); at += 4) {
    if (int_at(at) < 0 || int_at(at) >= n_vocab_)
      refuse("base.format", fmt::format("token ids below {}", n_vocab_), std::to_string(int_at(at)),
             int64_t(at));
  }
  rows_at_ = kHeader + size_t(tokens);
}

std::vector<int> LogitBase::tokens(int chunk) const {
  std::vector<int> ids(static_cast<size_t>(n_ctx_));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int_at(kHeader + 4 * (size_t(chunk) * size_t(n_ctx_) + i));
  return ids;
}

void LogitBase::read(int chunk, int row, std::vector<double>& to) const {
  const size_t index = size_t(chunk) * size_t(rows_scored(n_ctx_)) + size_t(row);
  const uint8_t* from = file_.bytes().data() + rows_at_ + index * row_bytes_;
  to.resize(size_t(n_vocab_));
  float step = 1, least = 0;
  if (quantised_) std::memcpy(&step, from, 4), std::memcpy(&least, from + 4, 4);
  bool finite = std::isfinite(step) && std::isfinite(least);
  for (size_t i = 0; i < to.size(); ++i) {
    float x;
    uint16_t steps;
    if (quantised_) {
      std::memcpy(&steps, from + 8 + 2 * i, 2);
      to[i] = double(least) + double(step) * steps;
    } else {
      std::memcpy(&x, from + 4 * i, 4);
      to[i] = x, finite = finite && std::isfinite(x);
    }
  }
  if (!finite)
    refuse("base.nonfinite", "finite numbers", fmt::format("infinity or NaN in row {}", index),
           int64_t(rows_at_ + index * row_bytes_));
}

void write_logit_base(
    const std::string& path, int n_ctx, int n_vocab, const std::vector<std::vector<int>>& chunks,
    const std::function<void(const std::function<void(std::span<const double>)>& row)>& rows) {
  const auto bytes_of = [](const auto& v) {
    return std::span(reinterpret_cast<const uint8_t*>(v.data()), v.size() * sizeof v[0]);
  };
  atomic_replace(path, [&](int fd) {
    write_all(fd, std::span(reinterpret_cast<const uint8_t*>(kOurs.data()), kOurs.size()));
    write_all(fd, bytes_of(std::vector<int32_t>{n_ctx, n_vocab, int32_t(chunks.size())}));
    for (const std::vector<int>& chunk : chunks)
      write_all(fd, bytes_of(std::vector<int32_t>(chunk.begin(), chunk.end())));
    size_t written = 0;
    rows([&](std::span<const double> row) {
      write_all(fd, bytes_of(std::vector<float>(row.begin(), row.end())));
      ++written;
    });
    PLUMB_CHECK(written == chunks.size() * size_t(rows_scored(n_ctx)));
  });
}

}  // namespace plumb
