// Every refusal of the reader: its code, the byte it points at, the key or tensor, and its words; and each
// limit at its value and one beyond.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "gguf/test_files.h"

namespace plumb::testing {
namespace {

using ::testing::HasSubstr;

// A file whose fields can be changed by name.
class File {
 public:
  explicit File(const GgufWriter& w) : bytes(w.bytes()) { w.head(&fields_); }

  // Where the n-th field of that kind lies.
  int64_t at(const std::string& what, int n = 0) const {
    for (const GgufField& f : fields_) {
      if (f.what == what && n-- == 0) return f.offset;
    }
    ADD_FAILURE() << "no field " << what;
    return 0;
  }
  template <class T>
  File& put(int64_t offset, T value) {
    std::memcpy(bytes.data() + offset, &value, sizeof value);
    return *this;
  }

  Bytes bytes;

 private:
  std::vector<GgufField> fields_;
};

void expect_refusal(const Bytes& b, const std::string& code, int64_t offset, const std::string& expected,
                    const std::string& found, const std::string& key = "", const std::string& tensor = "") {
  SCOPED_TRACE(code);
  try {
    read(b);
    ADD_FAILURE() << "nothing was refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_EQ(e.where().file, "test.gguf");
    EXPECT_EQ(e.where().offset, offset) << e.what();
    EXPECT_EQ(e.where().key, key);
    EXPECT_EQ(e.where().tensor, tensor);
    EXPECT_THAT(e.expected(), HasSubstr(expected));
    EXPECT_THAT(e.found(), HasSubstr(found));
  }
}

GgufWriter two_keys() {
  GgufWriter w;
  w.set("aa", uint32_t(7));
  w.set("ab", "text");
  return w;
}

GgufWriter two_tensors() {
  GgufWriter w;
  add_rows(w, "ta", Format::Q4_0, {64, 3});
  add_rows(w, "tb", Format::F32, {5});
  return w;
}

TEST(GgufRefusal, OtherMagicsVersionsAndByteOrders) {
  const File f{GgufWriter()};
  expect_refusal({'P', 'K', 3, 4, 0, 0, 0, 0}, "gguf.magic", 0, "begins with \"GGUF\"", "\"PK\\x03\\x04\"");
  expect_refusal({'G', 'G'}, "gguf.truncated", 0, "4 bytes for the magic", "2 bytes");
  expect_refusal({'F', 'U', 'G', 'G', 3, 0, 0, 0}, "gguf.big_endian", 0, "little-endian", "FUGG");
  expect_refusal(File(f).put(4, uint32_t(0x03000000)).bytes, "gguf.big_endian", 4, "little-endian",
                 "0x03000000");
  expect_refusal(File(f).put(4, uint32_t(0)).bytes, "gguf.version", 4, "version 2 or 3", "version 0");
  expect_refusal(File(f).put(4, uint32_t(1)).bytes, "gguf.version", 4, "version 2 or 3", "version 1");
  expect_refusal(File(f).put(4, uint32_t(4)).bytes, "gguf.version", 4, "version 2 or 3", "version 4");
}

TEST(GgufRefusal, CountsThatTheFileCannotHold) {
  const File f{GgufWriter()};
  expect_refusal(File(f).put(8, uint64_t(1)).bytes, "gguf.truncated", 8, "at most 0 tensors", "1");
  expect_refusal(File(f).put(8, uint64_t(65'537)).bytes, "gguf.too_many_tensors", 8, "65536", "65537");
  expect_refusal(File(f).put(16, uint64_t(1)).bytes, "gguf.truncated", 16, "at most 0 metadata entries", "1");
  expect_refusal(File(f).put(16, ~uint64_t(0)).bytes, "gguf.too_many_keys", 16, "65536",
                 "18446744073709551615");
}

TEST(GgufRefusal, Keys) {
  const File f(two_keys());
  const int64_t first = f.at("key length", 0), second = f.at("key length", 1);
  expect_refusal(File(f).put(first, uint64_t(0)).bytes, "gguf.key_length", first, "1 to 65535", "0 bytes");
  expect_refusal(File(f).put(second, uint64_t(65'536)).bytes, "gguf.key_length", second, "1 to 65535",
                 "65536");
  expect_refusal(File(f).put(second, uint64_t(60'000)).bytes, "gguf.truncated", second + 8,
                 "60000 bytes for a key", "");
  expect_refusal(File(f).put(first + 8, '\x1b').bytes, "gguf.key_text", first, "printable ASCII", "\\x1ba",
                 "\x1b"
                 "a");
  expect_refusal(File(f).put(second + 9, 'a').bytes, "gguf.key_duplicate", second, "each key once",
                 "first at byte 24", "aa");
}

TEST(GgufRefusal, ValueTypesAndStrings) {
  const File f(two_keys());
  const int64_t type = f.at("value type", 0), length = f.at("string length");
  expect_refusal(File(f).put(type, uint32_t(13)).bytes, "gguf.value_type", type, "0 (uint8) to 12 (float64)",
                 "13", "aa");
  expect_refusal(File(f).put(length, uint64_t(1) << 63).bytes, "gguf.string_length", length, "16777216",
                 "9223372036854775808", "ab");
  expect_refusal(File(f).put(length, uint64_t(100)).bytes, "gguf.truncated", length + 8,
                 "100 bytes for a string", "", "ab");
}

TEST(GgufRefusal, Arrays) {
  GgufWriter w;
  w.set_array("list", std::span<const uint32_t>(std::vector<uint32_t>{1, 2}));
  const File f(w);
  const int64_t type = f.at("element type"), count = f.at("array length");
  expect_refusal(File(f).put(type, uint32_t(9)).bytes, "gguf.nested_array", type, "numbers",
                 "array of arrays", "list");
  expect_refusal(File(f).put(type, uint32_t(77)).bytes, "gguf.value_type", type, "element type", "77",
                 "list");
  expect_refusal(File(f).put(count, uint64_t(16 << 20) + 1).bytes, "gguf.array_length", count, "16777216",
                 "16777217", "list");
  expect_refusal(File(f).put(count, uint64_t(1'000)).bytes, "gguf.truncated", count, "elements in the",
                 "1000", "list");
}

TEST(GgufRefusal, BooleansOtherThan0And1) {
  const File f(all_types(3));
  const Gguf g = read(f.bytes);
  const int64_t one = g.find("one.bool")->offset, many = g.find("many.bool")->offset;
  expect_refusal(File(f).put(one, uint8_t(2)).bytes, "gguf.boolean", one, "0 or 1", "2", "one.bool");
  expect_refusal(File(f).put(many + 2, uint8_t(255)).bytes, "gguf.boolean", many + 2, "0 or 1", "255",
                 "many.bool");
}

TEST(GgufRefusal, Alignments) {
  GgufWriter w;
  w.set_alignment(32);
  const File f(w);
  const int64_t at = f.at("value");
  for (uint32_t bad : {0u, 1u, 3u, 4u, 24u, 2u << 20, 1u << 31, ~0u}) {
    expect_refusal(File(f).put(at, bad).bytes, "gguf.alignment", at, "power of two from 8 to 1048576",
                   std::to_string(bad), "general.alignment");
  }
  EXPECT_EQ(read(File(f).put(at, uint32_t(8)).bytes).alignment(), 8u);
  EXPECT_EQ(read(File(f).put(at, uint32_t(1) << 20).bytes).alignment(), 1u << 20);
  GgufWriter text;
  text.set("general.alignment", "32");
  const Bytes b = text.bytes();
  expect_refusal(b, "gguf.alignment", 24 + 8 + 17 + 4, "an integer", "string", "general.alignment");
}

TEST(GgufRefusal, TensorNames) {
  const File f(two_tensors());
  const int64_t first = f.at("name length", 0), second = f.at("name length", 1);
  expect_refusal(File(f).put(first, uint64_t(0)).bytes, "gguf.name_length", first, "1 to 255", "0 bytes");
  expect_refusal(File(f).put(first, uint64_t(256)).bytes, "gguf.name_length", first, "1 to 255", "256 bytes");
  expect_refusal(File(f).put(first + 8, '\x9b').bytes, "gguf.name_text", first, "printable", "\\x9ba", "",
                 "\x9b"
                 "a");
  expect_refusal(File(f).put(second + 9, 'a').bytes, "gguf.name_duplicate", second, "each tensor once",
                 "first at byte 24 of test.gguf", "", "ta");
}

TEST(GgufRefusal, ShapesAndTypes) {
  const File f(two_tensors());
  const int64_t dims = f.at("dimension count"), ne0 = f.at("dimension", 0), ne1 = f.at("dimension", 1);
  const int64_t type = f.at("tensor type");
  expect_refusal(File(f).put(dims, uint32_t(5)).bytes, "gguf.dimensions", dims, "at most 4", "5", "", "ta");
  expect_refusal(File(f).put(ne1, uint64_t(0)).bytes, "gguf.shape", ne1, "at least 1", "0", "", "ta");
  expect_refusal(File(f).put(ne1, uint64_t(1) << 58).bytes, "gguf.shape", ne1, "fewer than 2^63", "", "",
                 "ta");
  expect_refusal(File(f).put(ne0, uint64_t(63)).bytes, "gguf.row_length", ne0, "blocks of 32 Q4_0", "[63, 3]",
                 "", "ta");
  const int64_t other = f.at("tensor type", 1), five = f.at("dimension", 2);
  expect_refusal(File(f).put(five, uint64_t(1) << 62).bytes, "gguf.shape", five, "2^63 bytes",
                 "4611686018427387904", "", "tb");
  expect_refusal(File(f).put(type, uint32_t(9)).bytes, "gguf.tensor_type", type, "Q4_K", "9 (Q8_1", "", "ta");
  expect_refusal(File(f).put(other, uint32_t(1'000)).bytes, "gguf.tensor_type", other, "F32 F16 Q4_0", "1000",
                 "", "tb");
}

TEST(GgufRefusal, PlacesOfTensors) {
  const File f(two_tensors());
  const int64_t first = f.at("tensor offset", 0), second = f.at("tensor offset", 1);
  expect_refusal(File(f).put(second, uint64_t(1)).bytes, "gguf.offset_alignment", second, "divisible by 32",
                 "1", "", "tb");
  expect_refusal(File(f).put(second, uint64_t(1) << 20).bytes, "gguf.tensor_range", second, "20 bytes",
                 "1048576", "", "tb");
  expect_refusal(File(f).put(second, ~uint64_t(31)).bytes, "gguf.tensor_range", second, "inside the file",
                 "18446744073709551584", "", "tb");
  expect_refusal(File(f).put(second, uint64_t(96)).bytes, "gguf.tensor_overlap", second, "after tensor ta",
                 "from byte", "", "tb");
  expect_refusal(File(f).put(first, uint64_t(32)).bytes, "gguf.tensor_overlap", second, "after tensor ta",
                 "from byte", "", "tb");
}

TEST(GgufRefusal, OnePartOfASplitModelAlone) {
  const Bytes b = split_part(0, 2, 4).bytes();
  expect_refusal(b, "gguf.split_count", read(split_part(0, 1, 2).bytes()).find("split.count")->offset, "1",
                 "2", "split.count");
}

TEST(GgufRefusal, ItsSentenceNamesFilePlaceExpectedFoundAndCode) {
  const Bytes b = File(two_tensors()).put(4, uint32_t(1)).bytes;
  try {
    read(b);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "test.gguf, byte 4: expected GGUF version 2 or 3, found version 1 [gguf.version]; "
                 "version 1 is obsolete: convert the model again");
  }
}

TEST(GgufLimits, AreAcceptedAndOneBeyondIsRefused) {
  GgufWriter key;
  key.set(std::string(65'535, 'k'), uint8_t(1));
  EXPECT_NO_THROW(read(key.bytes()));
  key.set(std::string(65'536, 'k'), uint8_t(1));
  EXPECT_THROW(read(key.bytes()), Error);

  GgufWriter name;
  add_rows(name, std::string(255, 'n'), Format::F32, {1});
  EXPECT_NO_THROW(read(name.bytes()));
  add_rows(name, std::string(256, 'n'), Format::F32, {1});
  EXPECT_THROW(read(name.bytes()), Error);

  GgufWriter text;
  text.set("s", std::string(16 << 20, 's'));
  EXPECT_NO_THROW(read(text.bytes()));
  text.set("s", std::string((16 << 20) + 1, 's'));
  EXPECT_THROW(read(text.bytes()), Error);

  GgufWriter list;
  list.set_array("a", std::span<const uint8_t>(Bytes(16 << 20)));
  EXPECT_NO_THROW(read(list.bytes()));
  list.set_array("a", std::span<const uint8_t>(Bytes((16 << 20) + 1)));
  EXPECT_THROW(read(list.bytes()), Error);
}

TEST(GgufLimits, Of65536KeysAndTensorsHold) {
  GgufWriter keys, tensors;
  for (int i = 0; i < 65'536; ++i) {
    keys.set(fmt::format("k{}", i), uint8_t(1));
    add_rows(tensors, fmt::format("t{}", i), Format::F32, {1});
  }
  EXPECT_EQ(read(keys.bytes()).values().size(), 65'536u);
  const Bytes full = tensors.bytes();
  EXPECT_EQ(read(full).tensors().size(), 65'536u);
  keys.set("more", uint8_t(1));
  EXPECT_THROW(read(keys.bytes()), Error);
  add_rows(tensors, "more", Format::F32, {1});
  EXPECT_THROW(read(tensors.bytes()), Error);
}

}  // namespace
}  // namespace plumb::testing
