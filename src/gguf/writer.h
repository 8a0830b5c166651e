// Writes GGUF files: metadata and tensors in, one little-endian file out. The data of tensors is asked for
// when its turn comes, so that a model larger than memory can be written. Specification: ggml/docs/gguf.md.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf.h"

namespace plumb {

/// The stored types of C++ numbers and booleans.
template <class T>
concept GgufNumber = std::same_as<T, uint8_t> || std::same_as<T, int8_t> || std::same_as<T, uint16_t> ||
                     std::same_as<T, int16_t> || std::same_as<T, uint32_t> || std::same_as<T, int32_t> ||
                     std::same_as<T, uint64_t> || std::same_as<T, int64_t> || std::same_as<T, float> ||
                     std::same_as<T, double> || std::same_as<T, bool>;

template <GgufNumber T>
constexpr GgufType gguf_type_of() {
  if constexpr (std::same_as<T, bool>) return GgufType::boolean;
  if constexpr (std::same_as<T, uint8_t>) return GgufType::u8;
  if constexpr (std::same_as<T, int8_t>) return GgufType::i8;
  if constexpr (std::same_as<T, uint16_t>) return GgufType::u16;
  if constexpr (std::same_as<T, int16_t>) return GgufType::i16;
  if constexpr (std::same_as<T, uint32_t>) return GgufType::u32;
  if constexpr (std::same_as<T, int32_t>) return GgufType::i32;
  if constexpr (std::same_as<T, uint64_t>) return GgufType::u64;
  if constexpr (std::same_as<T, int64_t>) return GgufType::i64;
  if constexpr (std::same_as<T, float>) return GgufType::f32;
  if constexpr (std::same_as<T, double>) return GgufType::f64;
}

/// A field of the head of a written file: what tests change to see what the reader says.
struct GgufField {
  std::string what;    // "key length", "array length", "tensor offset", ...
  int64_t offset = 0;  // in the file
  int bytes = 0;       // 1, 2, 4 or 8
};

class GgufWriter {
 public:
  using Sink = std::function<void(std::span<const uint8_t>)>;
  using Producer =
      std::function<void(const Sink&)>;  // sends exactly the tensor's bytes, in any number of pieces

  explicit GgufWriter(uint32_t version = 3) : version_(version) {}

  // Each key is written at the place where it was first set, with the value set last.
  template <GgufNumber T>
  void set(std::string_view key, T value) {
    put(key, gguf_type_of<T>(), false, 1, raw(&value, 1));
  }
  void set(std::string_view key, std::string_view value);

  template <GgufNumber T>
    requires(!std::same_as<T, bool>)
  void set_array(std::string_view key, std::span<const T> values) {
    put(key, gguf_type_of<T>(), true, values.size(), raw(values.data(), values.size()));
  }
  void set_array(std::string_view key, std::span<const std::string_view> values);
  void set_array(std::string_view key, const std::vector<bool>& values);

  /// A value as another file holds it.
  void set(const GgufValue& value);

  /// The alignment of the data, a power of two from 8 to 1 MiB; also sets general.alignment.
  void set_alignment(uint32_t alignment);

  /// Adds a tensor. Dimensions in GGUF order, ne[0] a multiple of the format's block; names are not checked
  /// for doubles.
  void add_tensor(std::string_view name, Format format, std::span<const int64_t> ne, Producer data);

  /// The same with bytes at hand, which are copied.
  void add_tensor(std::string_view name, Format format, std::span<const int64_t> ne,
                  std::vector<uint8_t> data);

  /// Everything before the data, padded; `fields`, if given, receives the place of each field.
  std::vector<uint8_t> head(std::vector<GgufField>* fields = nullptr) const;

  /// The whole file in memory.
  std::vector<uint8_t> bytes() const;

  /// Writes the file through atomic_replace; throws Error "file.write", and what the producers throw.
  void write(const std::string& path) const;

 private:
  struct Entry {
    std::string key;
    GgufType type;
    bool is_array;
    uint64_t count;
    std::vector<uint8_t> bytes;
  };
  struct Tensor {
    std::string name;
    Format format;
    std::vector<int64_t> ne;
    int64_t bytes;
    Producer data;
  };

  template <GgufNumber T>
  static std::vector<uint8_t> raw(const T* values, size_t n) {
    const auto* p = reinterpret_cast<const uint8_t*>(values);
    return {p, p + n * sizeof(T)};
  }
  void put(std::string_view key, GgufType type, bool is_array, uint64_t count, std::vector<uint8_t> bytes);
  void stream(const Sink& sink) const;
  int64_t padded(int64_t n) const { return (n + alignment_ - 1) / alignment_ * alignment_; }

  uint32_t version_;
  int64_t alignment_ = 32;
  std::vector<Entry> entries_;
  std::map<std::string, size_t, std::less<>> index_;  // of entries_
  std::vector<Tensor> tensors_;
};

}  // namespace plumb
