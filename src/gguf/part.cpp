// The head of a GGUF file: magic, version and counts, and the order in which the rest is read.
// Specification: ggml/docs/gguf.md, gguf_header_t.
#include "gguf/part.h"

#include "base/limits.h"

namespace plumb {
namespace {

constexpr uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;  // length, a byte of key, type, a byte of value
constexpr uint64_t kMinInfoBytes =
    8 + 1 + 4 + 4 + 8;  // length, a byte of name, dimension count, type, offset

[[noreturn]] void refuse_big_endian(const Cursor& in, int64_t at, std::string found) {
  in.fail("gguf.big_endian", at, "a little-endian file", std::move(found),
          "convert it to little-endian, for example with gguf-py's gguf-convert-endian");
}

void read_magic(Cursor& in) {
  const std::span<const uint8_t> magic = in.take(4, "the magic \"GGUF\"");
  const std::string_view text(reinterpret_cast<const char*>(magic.data()), magic.size());
  if (text == "FUGG") refuse_big_endian(in, 0, "\"FUGG\", the mark of a big-endian file");
  if (text != "GGUF")
    in.fail("gguf.magic", 0, "a GGUF file, which begins with \"GGUF\"", '"' + printable(text) + '"');
}

uint32_t read_version(Cursor& in) {
  const int64_t at = in.at();
  const uint32_t version = in.u32("the version");
  if (version == 2 || version == 3) return version;
  if (version != 0 && (version & 0xffffu) == 0) {
    refuse_big_endian(in, at, fmt::format("version {:#010x}, the bytes in the other order", version));
  }
  in.fail("gguf.version", at, "GGUF version 2 or 3", fmt::format("version {}", version),
          version == 1 ? "version 1 is obsolete: convert the model again" : "");
}

uint64_t read_count(Cursor& in, const char* what, const char* code, uint64_t max, uint64_t min_size) {
  const int64_t at = in.at();
  const uint64_t count = in.u64(what);
  if (count > max) in.fail(code, at, fmt::format("at most {} {}", max, what), fmt::format("{}", count));
  in.expect_room(count, min_size, at, what);
  return count;
}

}  // namespace

Part read_part(std::span<const uint8_t> bytes, const std::string& file) {
  Part part;
  part.file = file;
  part.file_bytes = int64_t(bytes.size());
  Cursor in(bytes, part.file);
  read_magic(in);
  part.version = read_version(in);
  const uint64_t tensors = read_count(in, "tensors", "gguf.too_many_tensors", kMaxGgufTensors, kMinInfoBytes);
  const uint64_t keys =
      read_count(in, "metadata entries", "gguf.too_many_keys", kMaxGgufKeys, kMinEntryBytes);
  read_metadata(in, keys, bytes, part);
  part.metadata_end = in.at();
  part.alignment = read_alignment(in, part);
  read_tensors(in, tensors, bytes, part);
  return part;
}

}  // namespace plumb
