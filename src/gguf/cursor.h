// Bounded little-endian reads over untrusted bytes: each read is checked against the bytes left before it
// happens, and each failure carries the offset and the key or tensor being read.
#pragma once

#include <fmt/format.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace plumb {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

class Cursor {
 public:
  /// `file` stands in messages and must outlive the cursor.
  Cursor(std::span<const uint8_t> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  int64_t at() const { return int64_t(at_); }
  uint64_t left() const { return bytes_.size() - at_; }

  uint32_t u32(const char* what) { return scalar<uint32_t>(what); }
  uint64_t u64(const char* what) { return scalar<uint64_t>(what); }

  /// The next n bytes; throws "gguf.truncated" when fewer are left.
  std::span<const uint8_t> take(uint64_t n, const char* what) {
    if (n > left()) {
      fail("gguf.truncated", at(), fmt::format("{} bytes for {}", n, what),
           fmt::format("{} bytes up to the end of the file", left()));
    }
    const std::span<const uint8_t> taken = bytes_.subspan(at_, size_t(n));
    at_ += size_t(n);
    return taken;
  }

  /// A u64 length and that many bytes. A length outside [min, max] throws `code`.
  std::string_view text(uint64_t min, uint64_t max, const char* code, const char* what) {
    const int64_t start = at();
    const uint64_t n = u64(what);
    if (n < min || n > max) {
      fail(code, start, fmt::format("{} of {} to {} bytes", what, min, max), fmt::format("{} bytes", n));
    }
    const std::span<const uint8_t> s = take(n, what);
    return {reinterpret_cast<const char*>(s.data()), s.size()};
  }

  /// Throws "gguf.truncated" unless `count` items of at least `size` bytes can still follow; before any
  /// allocation.
  void expect_room(uint64_t count, uint64_t size, int64_t offset, const char* what) const {
    if (count <= left() / size) return;
    fail("gguf.truncated", offset,
         fmt::format("at most {} {} in the {} bytes left", left() / size, what, left()),
         fmt::format("a count of {}", count));
  }

  // What is being read, for messages.
  void in_key(std::string_view key) { key_ = key; }
  void in_tensor(std::string_view tensor) { tensor_ = tensor; }

  [[noreturn]] void fail(const char* code, int64_t offset, std::string expected, std::string found,
                         std::string remedy = {}) const {
    throw Error(
        {.code = code,
         .expected = std::move(expected),
         .found = std::move(found),
         .where = {.file = file_, .offset = offset, .key = std::string(key_), .tensor = std::string(tensor_)},
         .remedy = std::move(remedy)});
  }

 private:
  template <class T>
  T scalar(const char* what) {
    T v;
    std::memcpy(&v, take(sizeof v, what).data(), sizeof v);
    return v;
  }

  std::span<const uint8_t> bytes_;
  const std::string& file_;
  size_t at_ = 0;
  std::string_view key_;
  std::string_view tensor_;
};

}  // namespace plumb
