// The GGUF container: typed metadata and an index of tensors, over mapped bytes. It knows nothing of their
// meaning. Specification: ggml/docs/gguf.md. Untrusted input: every refusal is a plumb::Error with code,
// offset, key or tensor, what was expected and what was found.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/format.h"

namespace plumb {

enum class GgufType : uint32_t { u8 = 0, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

const char* name(GgufType type);

/// One metadata entry. Scalars and arrays alike are views into the file's bytes, already checked to lie
/// inside.
struct GgufValue {
  std::string_view key;
  GgufType type = GgufType::u8;  // of the value, or of the elements when is_array
  bool is_array = false;
  int64_t count = 1;                    // elements
  int64_t offset = 0;                   // of the first element, in the first file
  std::span<const uint8_t> bytes = {};  // the elements as stored, unaligned little-endian
};

struct GgufTensor {
  std::string_view name;
  Format format = Format::F32;
  int n_dims = 0;
  int64_t ne[4] = {1, 1, 1, 1};  // GGUF order: ne[0] is the contiguous dimension, the columns of a matrix
  int64_t offset = 0;            // byte offset in its file
  int64_t bytes = 0;
  const uint8_t* data = nullptr;  // `bytes` readable bytes, aligned to the file's alignment
  int file = 0;                   // which part of a split model

  int64_t columns() const { return ne[0]; }
  int64_t rows() const { return ne[1] * ne[2] * ne[3]; }
  int64_t elements() const { return columns() * rows(); }
};

class Gguf {
 public:
  /// Maps the file, and its other parts when it is the first of a split model (-00001-of-0000N). Throws
  /// Error.
  static Gguf open(const std::string& path);

  /// Reads one file from memory that outlives the result; `name` stands in messages. Tensors must lie inside.
  /// Throws.
  static Gguf parse(std::span<const uint8_t> bytes, const std::string& name);

  /// The same for all parts of a split model, in order. Throws Error.
  static Gguf parse(std::span<const std::span<const uint8_t>> parts, std::span<const std::string> names);

  Gguf(Gguf&&) noexcept;
  Gguf& operator=(Gguf&&) noexcept;
  ~Gguf();

  const std::string& path() const;                         // as given to open, or the name given to parse
  const std::vector<std::string>& files() const;           // of all parts; GgufTensor::file counts them
  std::vector<std::span<const uint8_t>> contents() const;  // of the same; none after parse
  uint32_t version() const;                                // 2 or 3
  uint64_t alignment() const;
  int64_t file_bytes() const;                   // of all parts together
  std::span<const GgufValue> values() const;    // in file order
  std::span<const GgufTensor> tensors() const;  // in file order, all parts

  const GgufValue* find(std::string_view key) const;
  const GgufTensor* find_tensor(std::string_view name) const;

  // Typed access. An absent key gives nullopt; a value of another type or outside [min, max] throws. Integers
  // of every width and sign are accepted where their value fits; reals accept f32 and f64; nothing else is
  // converted.
  std::optional<int64_t> integer(std::string_view key, int64_t min, int64_t max) const;
  std::optional<double> real(std::string_view key, double min, double max) const;
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<std::vector<std::string_view>> texts(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key, int64_t min, int64_t max) const;
  std::optional<std::vector<float>> reals(std::string_view key) const;
  std::optional<std::vector<bool>> flags(std::string_view key) const;

  /// For callers that require a key: throws "gguf.key_missing" naming it and saying what it should hold.
  [[noreturn]] void missing(std::string_view key, std::string_view what) const;

  /// For callers that judge a value: throws with the key's offset.
  [[noreturn]] void refuse(std::string_view key, std::string code, std::string expected,
                           std::string found) const;

 private:
  struct State;
  explicit Gguf(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace plumb
