#include "gguf/writer.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/limits.h"
#include "gguf/value.h"

namespace plumb {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie in memory");

void append(std::vector<uint8_t>& out, const void* bytes, size_t n) {
  const size_t at = out.size();
  out.resize(at + n);
  if (n > 0) std::memcpy(out.data() + at, bytes, n);
}

void append_text(std::vector<uint8_t>& out, std::string_view text) {
  const uint64_t n = text.size();
  append(out, &n, sizeof n);
  append(out, text.data(), text.size());
}

// Appends to the head and notes where each field went.
class Head {
 public:
  explicit Head(std::vector<GgufField>* fields) : fields_(fields) {}

  template <class T>
  void number(const char* what, T value) {
    note(what, bytes_.size(), sizeof(T));
    append(bytes_, &value, sizeof value);
  }

  void text(const char* length_what, std::string_view text) {
    note(length_what, bytes_.size(), 8);
    append_text(bytes_, text);
  }

  void value(GgufType type, uint64_t count, const std::vector<uint8_t>& value) {
    const size_t size = size_t(element_bytes(type));
    size_t at = 0;
    for (uint64_t i = 0; i < count && fields_; ++i) {
      note(size ? "value" : "string length", bytes_.size() + at, size ? size : 8);
      uint64_t length = 0;
      if (!size) std::memcpy(&length, value.data() + at, sizeof length);
      at += size ? size : sizeof length + size_t(length);
    }
    append(bytes_, value.data(), value.size());
  }

  std::vector<uint8_t>& bytes() { return bytes_; }

 private:
  void note(const char* what, size_t offset, size_t size) {
    if (fields_) fields_->push_back({what, int64_t(offset), int(size)});
  }

  std::vector<uint8_t> bytes_;
  std::vector<GgufField>* fields_;
};

}  // namespace

void GgufWriter::put(std::string_view key, GgufType type, bool is_array, uint64_t count,
                     std::vector<uint8_t> bytes) {
  Entry entry{std::string(key), type, is_array, count, std::move(bytes)};
  const auto [it, added] = index_.emplace(entry.key, entries_.size());
  if (added) {
    entries_.push_back(std::move(entry));
  } else {
    entries_[it->second] = std::move(entry);
  }
}

void GgufWriter::set(std::string_view key, std::string_view value) {
  std::vector<uint8_t> bytes;
  append_text(bytes, value);
  put(key, GgufType::string, false, 1, std::move(bytes));
}

void GgufWriter::set_array(std::string_view key, std::span<const std::string_view> values) {
  std::vector<uint8_t> bytes;
  for (std::string_view v : values) append_text(bytes, v);
  put(key, GgufType::string, true, values.size(), std::move(bytes));
}

void GgufWriter::set_array(std::string_view key, const std::vector<bool>& values) {
  put(key, GgufType::boolean, true, values.size(), std::vector<uint8_t>(values.begin(), values.end()));
}

void GgufWriter::set(const GgufValue& value) {
  if (value.key == "general.alignment") {
    const std::optional<int64_t> a = integer_at(value, 0);
    PLUMB_CHECK(a && *a >= 0 && *a <= kMaxGgufAlignment);
    set_alignment(uint32_t(*a));
    return;
  }
  put(value.key, value.type, value.is_array, uint64_t(value.count), {value.bytes.begin(), value.bytes.end()});
}

void GgufWriter::set_alignment(uint32_t alignment) {
  PLUMB_CHECK(alignment >= kMinGgufAlignment && alignment <= kMaxGgufAlignment &&
              std::has_single_bit(alignment));
  alignment_ = alignment;
  set("general.alignment", alignment);
}

void GgufWriter::add_tensor(std::string_view name, Format format, std::span<const int64_t> ne,
                            Producer data) {
  PLUMB_CHECK(ne.size() <= size_t(kMaxGgufDimensions));
  int64_t rows = 1;
  for (size_t i = 1; i < ne.size(); ++i) rows *= ne[i];
  const int64_t columns = ne.empty() ? 1 : ne[0];
  PLUMB_CHECK(columns % info(format).block == 0);
  tensors_.push_back({std::string(name),
                      format,
                      {ne.begin(), ne.end()},
                      rows * row_bytes(format, columns),
                      std::move(data)});
}

void GgufWriter::add_tensor(std::string_view name, Format format, std::span<const int64_t> ne,
                            std::vector<uint8_t> data) {
  auto held = std::make_shared<const std::vector<uint8_t>>(std::move(data));
  add_tensor(name, format, ne, [held](const Sink& sink) { sink(*held); });
}

std::vector<uint8_t> GgufWriter::head(std::vector<GgufField>* fields) const {
  Head h(fields);
  const std::string_view magic = "GGUF";
  append(h.bytes(), magic.data(), magic.size());
  h.number("version", version_);
  h.number("tensor count", uint64_t(tensors_.size()));
  h.number("key count", uint64_t(entries_.size()));
  for (const Entry& e : entries_) {
    h.text("key length", e.key);
    if (e.is_array) {
      h.number("value type", uint32_t(GgufType::array));
      h.number("element type", uint32_t(e.type));
      h.number("array length", e.count);
    } else {
      h.number("value type", uint32_t(e.type));
    }
    h.value(e.type, e.count, e.bytes);
  }
  int64_t offset = 0;
  for (const Tensor& t : tensors_) {
    h.text("name length", t.name);
    h.number("dimension count", uint32_t(t.ne.size()));
    for (int64_t n : t.ne) h.number("dimension", uint64_t(n));
    h.number("tensor type", uint32_t(t.format));
    h.number("tensor offset", uint64_t(offset));
    offset += padded(t.bytes);
  }
  h.bytes().resize(size_t(padded(int64_t(h.bytes().size()))));
  return std::move(h.bytes());
}

void GgufWriter::stream(const Sink& sink) const {
  sink(head());
  const std::vector<uint8_t> zeros(size_t(alignment_), 0);
  for (const Tensor& t : tensors_) {
    int64_t sent = 0;
    t.data([&](std::span<const uint8_t> piece) {
      sent += int64_t(piece.size());
      sink(piece);
    });
    PLUMB_CHECK(sent == t.bytes);
    sink(std::span(zeros).first(size_t(padded(t.bytes) - t.bytes)));
  }
}

std::vector<uint8_t> GgufWriter::bytes() const {
  std::vector<uint8_t> out;
  stream([&out](std::span<const uint8_t> piece) { append(out, piece.data(), piece.size()); });
  return out;
}

void GgufWriter::write(const std::string& path) const {
  atomic_replace(path,
                 [this](int fd) { stream([fd](std::span<const uint8_t> piece) { write_all(fd, piece); }); });
}

}  // namespace plumb
