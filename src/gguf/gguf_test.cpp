// What the reader accepts: each value type, both versions, accessors, tensors, split models, and what the
// writer writes.
#include "gguf/gguf.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>

#include "base/file.h"
#include "gguf/test_files.h"

namespace plumb::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "plumb_gguf.XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& file) const { return path_ + "/" + file; }

 private:
  std::string path_;
};

Error refusal(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was refused";
  return Error({.code = "none"});
}

TEST(Gguf, ReadsEachScalarTypeInVersions2And3) {
  for (uint32_t version : {2u, 3u}) {
    const Bytes b = all_types(version).bytes();
    const Gguf g = read(b);
    EXPECT_EQ(g.version(), version);
    EXPECT_EQ(g.integer("one.u8", 0, 255), 255);
    EXPECT_EQ(g.integer("one.i8", -128, 127), -128);
    EXPECT_EQ(g.integer("one.u16", 0, 65535), 65535);
    EXPECT_EQ(g.integer("one.i16", -32768, 0), -32768);
    EXPECT_EQ(g.integer("one.u32", 0, INT64_MAX), 4294967295);
    EXPECT_EQ(g.integer("one.i32", INT64_MIN, 0), INT32_MIN);
    EXPECT_EQ(g.integer("one.i64", INT64_MIN, 0), INT64_MIN);
    EXPECT_EQ(g.real("one.f32", 0, 2), 1.5);
    EXPECT_EQ(g.real("one.f64", 0, 2), 0.1);
    EXPECT_EQ(g.flag("one.bool"), true);
    EXPECT_EQ(g.text("one.string"), "text");
  }
}

TEST(Gguf, ReadsEachArrayType) {
  const Bytes b = all_types(3).bytes();
  const Gguf g = read(b);
  EXPECT_THAT(*g.integers("many.u8", 0, 255), ElementsAre(255, 0, 7));
  EXPECT_THAT(*g.integers("many.i8", -128, 127), ElementsAre(-128, 127, 1));
  EXPECT_THAT(*g.integers("many.u16", 0, 65535), ElementsAre(65535, 0, 9));
  EXPECT_THAT(*g.integers("many.i16", INT64_MIN, INT64_MAX), ElementsAre(-32768, 32767, 2));
  EXPECT_THAT(*g.integers("many.u32", 0, INT64_MAX), ElementsAre(4294967295, 0, 3));
  EXPECT_THAT(*g.integers("many.i32", INT64_MIN, INT64_MAX), ElementsAre(INT32_MIN, 5));
  EXPECT_THAT(*g.integers("many.i64", INT64_MIN, INT64_MAX), ElementsAre(INT64_MIN, -1));
  EXPECT_THAT(*g.reals("many.f32"), ElementsAre(1.5f, -0.25f));
  EXPECT_EQ((*g.reals("many.f64"))[0], 0.1f);
  EXPECT_THAT(*g.flags("many.bool"), ElementsAre(true, false, true));
  EXPECT_THAT(*g.texts("many.string"), ElementsAre("", "a", "\xff\x1b[0m"));
  EXPECT_TRUE(g.integers("many.none", 0, 0)->empty());
}

TEST(Gguf, AnAbsentKeyIsNothingForEveryAccessor) {
  const Bytes b = GgufWriter().bytes();
  const Gguf g = read(b);
  EXPECT_FALSE(g.integer("k", 0, 1) || g.real("k", 0, 1) || g.flag("k") || g.text("k") || g.texts("k"));
  EXPECT_FALSE(g.integers("k", 0, 1) || g.reals("k") || g.flags("k"));
  EXPECT_EQ(g.find("k"), nullptr);
  EXPECT_EQ(g.find_tensor("k"), nullptr);
}

TEST(Gguf, AccessorsRefuseOtherTypesNamingBoth) {
  const Bytes b = all_types(3).bytes();
  const Gguf g = read(b);
  const Error e = refusal([&] { g.integer("one.string", 0, 1); });
  EXPECT_EQ(e.code(), "gguf.key_type");
  EXPECT_EQ(e.where().key, "one.string");
  EXPECT_EQ(e.where().offset, g.find("one.string")->offset);
  EXPECT_EQ(e.expected(), "an integer");
  EXPECT_EQ(e.found(), "string");
  EXPECT_EQ(refusal([&] { g.integer("many.u8", 0, 1); }).found(), "an array of 3 uint8");
  EXPECT_EQ(refusal([&] { g.integers("one.u8", 0, 1); }).found(), "uint8");
  EXPECT_EQ(refusal([&] { g.integer("one.bool", 0, 1); }).found(), "bool");
  EXPECT_EQ(refusal([&] { g.real("one.u8", 0, 1); }).found(), "uint8");
  EXPECT_EQ(refusal([&] { g.flag("one.u8"); }).found(), "uint8");
  EXPECT_EQ(refusal([&] { g.flags("many.u8"); }).found(), "an array of 3 uint8");
  EXPECT_EQ(refusal([&] { g.text("many.string"); }).found(), "an array of 3 string");
  EXPECT_EQ(refusal([&] { g.texts("one.string"); }).found(), "string");
  EXPECT_EQ(refusal([&] { g.reals("many.i32"); }).found(), "an array of 2 int32");
}

TEST(Gguf, AccessorsRefuseNumbersOutsideTheirRange) {
  GgufWriter w;
  w.set("small", int16_t(-3));
  w.set("big", uint64_t(1) << 63);
  w.set("nan", std::numeric_limits<float>::quiet_NaN());
  w.set_array("list", std::span<const uint32_t>(std::vector<uint32_t>{1, 2, 99}));
  const Bytes b = w.bytes();
  const Gguf g = read(b);
  EXPECT_EQ(g.integer("small", -3, -3), -3);
  const Error e = refusal([&] { g.integer("small", 0, 7); });
  EXPECT_EQ(e.code(), "gguf.key_range");
  EXPECT_EQ(e.expected(), "an integer from 0 to 7");
  EXPECT_EQ(e.found(), "-3");
  EXPECT_EQ(refusal([&] { g.integer("small", -9, -4); }).found(), "-3");
  EXPECT_EQ(refusal([&] { g.integer("big", INT64_MIN, INT64_MAX); }).found(), "9223372036854775808");
  EXPECT_EQ(refusal([&] { g.real("nan", -1e300, 1e300); }).found(), "nan");
  const Error list = refusal([&] { g.integers("list", 0, 98); });
  EXPECT_EQ(list.found(), "99");
  EXPECT_EQ(list.where().offset, g.find("list")->offset + 8);
}

TEST(Gguf, MissingAndRefuseNameKeyAndPlace) {
  const Bytes b = small_model().bytes();
  const Gguf g = read(b);
  const Error missing = refusal([&] { g.missing("llama.context_length", "the length of the context"); });
  EXPECT_EQ(missing.code(), "gguf.key_missing");
  EXPECT_EQ(missing.expected(), "the length of the context");
  EXPECT_TRUE(is_complete(missing));
  const Error judged = refusal([&] { g.refuse("llama.block_count", "model.layers", "2", "1"); });
  EXPECT_EQ(judged.code(), "model.layers");
  EXPECT_EQ(judged.where().offset, g.find("llama.block_count")->offset);
}

TEST(Gguf, TensorsLieWhereTheFileSaysWithTheirShapes) {
  const Bytes b = small_model().bytes();
  const Gguf g = read(b);
  EXPECT_EQ(g.alignment(), 64u);
  ASSERT_EQ(g.tensors().size(), 5u);
  const GgufTensor* t = g.find_tensor("token_embd.weight");
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(t->format, Format::Q8_0);
  EXPECT_EQ(t->columns(), 32);
  EXPECT_EQ(t->rows(), 4);
  EXPECT_EQ(t->bytes, 136);
  EXPECT_EQ(t->data, b.data() + t->offset);
  EXPECT_EQ(Bytes(t->data, t->data + t->bytes), counted(136));
  const GgufTensor* four = g.find_tensor("blk.0.four");
  EXPECT_THAT(four->ne, ElementsAre(2, 1, 3, 2));
  EXPECT_EQ(four->elements(), 12);
  EXPECT_EQ(g.find_tensor("scalar")->elements(), 1);
  for (const GgufTensor& each : g.tensors()) EXPECT_EQ(each.offset % 64, 0);
}

TEST(Gguf, EveryFormatsRowHasTheSizeOfItsBlock) {
  const Bytes b = all_formats().bytes();
  const Gguf g = read(b);
  ASSERT_EQ(g.tensors().size(), formats().size());
  for (const FormatInfo& f : formats())
    EXPECT_EQ(g.find_tensor(std::string("row.") + f.name)->bytes, f.bytes);
}

TEST(Gguf, AVocabularyOf262144TokensIsReadAsViewsWithin100Milliseconds) {
  std::vector<std::string> text;
  for (int i = 0; i < 262'144; ++i) text.push_back(fmt::format("token{}", i));
  GgufWriter w;
  w.set_array("tokens", std::vector<std::string_view>(text.begin(), text.end()));
  const Bytes b = w.bytes();
  const auto start = std::chrono::steady_clock::now();
  const Gguf g = read(b);
  const std::vector<std::string_view> tokens = *g.texts("tokens");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_EQ(tokens.back(), "token262143");
  EXPECT_GE(reinterpret_cast<const uint8_t*>(tokens[0].data()), b.data());
  EXPECT_LT(seconds, 0.1);  // measured 4 ms; sanitizers and busy machines are slower
}

TEST(GgufWriter, AFileCopiedValueByValueIsTheSameFile) {
  for (const GgufWriter& original : {all_types(3), small_model(), all_formats()}) {
    const Bytes b = original.bytes();
    const Gguf g = read(b);
    GgufWriter copy;
    for (const GgufValue& v : g.values()) copy.set(v);
    for (const GgufTensor& t : g.tensors()) {
      copy.add_tensor(t.name, t.format, std::span(t.ne, size_t(t.n_dims)), Bytes(t.data, t.data + t.bytes));
    }
    EXPECT_EQ(copy.bytes(), b);
  }
}

TEST(GgufWriter, AKeySetTwiceKeepsItsPlaceAndTheLastValue) {
  GgufWriter w;
  w.set("a", uint32_t(1));
  w.set("b", uint32_t(2));
  w.set("a", "text");
  const Bytes b = w.bytes();
  const Gguf g = read(b);
  ASSERT_EQ(g.values().size(), 2u);
  EXPECT_EQ(g.values()[0].key, "a");
  EXPECT_EQ(g.text("a"), "text");
}

TEST(GgufWriter, WriteStreamsTheSameBytesToAFile) {
  const Folder folder;
  small_model().write(folder / "m.gguf");
  const std::string file = read_file(folder / "m.gguf", 1 << 20);
  EXPECT_EQ(Bytes(file.begin(), file.end()), small_model().bytes());
}

TEST(GgufOpen, MapsAFile) {
  const Folder folder;
  small_model().write(folder / "m.gguf");
  Gguf g = Gguf::open(folder / "m.gguf");
  EXPECT_EQ(g.path(), folder / "m.gguf");
  EXPECT_EQ(g.file_bytes(), int64_t(small_model().bytes().size()));
  EXPECT_TRUE(walk(g));
  const Gguf moved = std::move(g);
  EXPECT_TRUE(walk(moved));
}

void write_split(const Folder& folder, int parts, int32_t tensors) {
  for (int i = 0; i < parts; ++i) {
    split_part(uint16_t(i), uint16_t(parts), tensors)
        .write(folder / ("m-0000" + std::to_string(i + 1) + "-of-0000" + std::to_string(parts) + ".gguf"));
  }
}

TEST(GgufOpen, TheFirstPartOfASplitModelOpensAllParts) {
  const Folder folder;
  write_split(folder, 3, 6);
  const Gguf g = Gguf::open(folder / "m-00001-of-00003.gguf");
  ASSERT_EQ(g.tensors().size(), 6u);
  EXPECT_EQ(g.files().size(), 3u);
  EXPECT_EQ(g.find_tensor("part2.1")->file, 2);
  EXPECT_EQ(g.files()[2], folder / "m-00003-of-00003.gguf");
  EXPECT_EQ(g.text("general.name"), "split");
  EXPECT_TRUE(walk(g));
}

TEST(GgufOpen, AnotherPartIsRefusedNamingTheFirst) {
  const Folder folder;
  write_split(folder, 3, 6);
  const Error e = refusal([&] { Gguf::open(folder / "m-00002-of-00003.gguf"); });
  EXPECT_EQ(e.code(), "gguf.split_first");
  EXPECT_EQ(e.found(), "part 2");
  EXPECT_EQ(e.remedy(), "open " + (folder / "m-00001-of-00003.gguf"));
  EXPECT_TRUE(is_complete(e));
}

TEST(GgufOpen, AMissingPartIsRefusedByName) {
  const Folder folder;
  write_split(folder, 3, 6);
  std::filesystem::remove(folder / "m-00003-of-00003.gguf");
  const Error e = refusal([&] { Gguf::open(folder / "m-00001-of-00003.gguf"); });
  EXPECT_EQ(e.code(), "gguf.split_missing");
  EXPECT_THAT(e.expected(), HasSubstr(folder / "m-00003-of-00003.gguf"));
  EXPECT_TRUE(is_complete(e));
}

TEST(GgufOpen, ASplitModelUnderAnotherNameIsRefused) {
  const Folder folder;
  write_split(folder, 3, 6);
  std::filesystem::rename(folder / "m-00001-of-00003.gguf", folder / "model.gguf");
  const Error e = refusal([&] { Gguf::open(folder / "model.gguf"); });
  EXPECT_EQ(e.code(), "gguf.split_name");
  EXPECT_THAT(e.expected(), HasSubstr("-00001-of-00003.gguf"));
}

TEST(GgufOpen, PartsThatDoNotFitTogetherAreRefused) {
  const Folder folder;
  write_split(folder, 3, 6);
  split_part(1, 4, 6).write(folder / "m-00002-of-00003.gguf");
  EXPECT_EQ(refusal([&] { Gguf::open(folder / "m-00001-of-00003.gguf"); }).code(), "gguf.split_count");
  split_part(2, 3, 6).write(folder / "m-00002-of-00003.gguf");
  EXPECT_EQ(refusal([&] { Gguf::open(folder / "m-00001-of-00003.gguf"); }).code(), "gguf.split_order");
  write_split(folder, 3, 7);
  EXPECT_EQ(refusal([&] { Gguf::open(folder / "m-00001-of-00003.gguf"); }).code(), "gguf.split_tensors");
}

TEST(GgufOpen, ATensorInTwoPartsIsRefusedNamingBothFiles) {
  GgufWriter second;
  second.set("split.no", uint16_t(1));
  second.set("split.count", uint16_t(2));
  add_rows(second, "part0.1", Format::F32, {4});
  const Error e = refusal([&] { parse(seed("doubled", {split_part(0, 2, 3), second})); });
  EXPECT_EQ(e.code(), "gguf.name_duplicate");
  EXPECT_EQ(e.where().file, "part1");
  EXPECT_EQ(e.where().tensor, "part0.1");
  EXPECT_THAT(e.found(), HasSubstr("of part0"));
}

TEST(GgufOpen, MetadataOfALaterPartMayRepeatButNotAdd) {
  GgufWriter second = split_part(1, 2, 4);
  second.set("general.name", "split");
  EXPECT_EQ(parse(seed("repeated", {split_part(0, 2, 4), second})).tensors().size(), 4u);
  second.set("general.name", "other");
  EXPECT_EQ(refusal([&] { parse(seed("changed", {split_part(0, 2, 4), second})); }).code(),
            "gguf.split_metadata");
}

TEST(GgufOpen, FoldersAndAbsentFilesAreRefused) {
  const Folder folder;
  EXPECT_EQ(refusal([&] { Gguf::open(folder / ""); }).code(), "file.open");
  EXPECT_EQ(refusal([&] { Gguf::open(folder / "absent.gguf"); }).code(), "file.open");
}

TEST(GgufOpen, AnEmptyFileIsRefusedAsTruncated) {
  const Folder folder;
  atomic_replace(folder / "empty.gguf", std::string_view());
  const Error e = refusal([&] { Gguf::open(folder / "empty.gguf"); });
  EXPECT_EQ(e.code(), "gguf.truncated");
  EXPECT_EQ(e.where().offset, 0);
}

}  // namespace
}  // namespace plumb::testing
