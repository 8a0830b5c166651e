// The reports of `plumb inspect`, as text and as JSON, and what they do with hostile names and texts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "app/command.h"
#include "app/inspect_report.h"
#include "app/terminal_text.h"
#include "base/error.h"
#include "base/file.h"
#include "gguf/test_files.h"

namespace plumb {
namespace {

using ::testing::HasSubstr;

GgufWriter model() {
  GgufWriter w = testing::small_model();
  w.set("tokenizer.ggml.bos_token_id", uint32_t(1));
  w.set("tokenizer.ggml.eos_token_id", uint32_t(99));
  w.set("tokenizer.ggml.add_bos_token", true);
  return w;
}

TEST(Inspect, TheTextNamesMetadataTokenizerTensorsAndTotals) {
  const std::vector<uint8_t> bytes = model().bytes();
  const std::string text = inspect_text(Gguf::parse(bytes, "m.gguf"), false);
  EXPECT_THAT(text, HasSubstr("m.gguf\n  GGUF version 3, 11 keys, 5 tensors, alignment 64"));
  EXPECT_THAT(text, HasSubstr("general.architecture"));
  EXPECT_THAT(text, HasSubstr("\"<unk>\", \"<s>\""));
  EXPECT_THAT(text, HasSubstr("bos                  1        \"<s>\""));
  EXPECT_THAT(text, HasSubstr("eos                  99       outside the vocabulary"));
  EXPECT_THAT(text, HasSubstr("add_bos_token        true"));
  EXPECT_THAT(text, HasSubstr("token_embd.weight       Q8_0  [32, 4]"));
  EXPECT_THAT(text, HasSubstr("8.5\n"));
}

TEST(Inspect, NoLineIsLongerThan80ColumnsUnlessANameIs) {
  const std::vector<uint8_t> bytes = testing::all_types(3).bytes();
  const std::string text = inspect_text(Gguf::parse(bytes, "m.gguf"), false);
  for (size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    EXPECT_LE(display_width(text.substr(at, end - at)), 80) << text.substr(at, end - at);
  }
}

TEST(Inspect, NothingThatATerminalObeysComesFromTheFile) {
  GgufWriter w = testing::all_types(3);
  std::string evil;
  for (int c = 0; c < 256; ++c) evil += char(c);
  evil +=
      "\xc2\x9b"
      "31m\xe2\x80\xae\xe2\x80\xa8\xef\xbb\xbf";
  w.set("evil", evil);
  w.set_array("evils", std::vector<std::string_view>{evil, evil});
  const std::vector<uint8_t> bytes = w.bytes();
  const Gguf g = Gguf::parse(bytes, "m\x1b.gguf");
  for (bool full : {false, true}) {
    const std::string text = inspect_text(g, full);
    for (char c : text) EXPECT_TRUE(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f));
    for (const char* bad : {"\xc2\x9b", "\xe2\x80\xae", "\xe2\x80\xa8", "\xef\xbb\xbf", "\xff"}) {
      EXPECT_EQ(text.find(bad), std::string::npos);
    }
    for (char c : dump(inspect_json(g, full), {.indent = 2, .ascii = true})) {
      EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f));
    }
  }
}

TEST(Inspect, TheJsonHoldsEveryValueWithItsType) {
  const std::vector<uint8_t> bytes = testing::all_types(3).bytes();
  const Json j = parse_json(dump(inspect_json(Gguf::parse(bytes, "m.gguf"), true)), "report");
  const Json& metadata = *j.find("metadata");
  EXPECT_EQ(metadata.find("one.i16")->find("value")->integer(), -32768);
  EXPECT_EQ(*metadata.find("one.u64")->find("value")->text(), "18446744073709551615");
  EXPECT_EQ(metadata.find("one.f32")->find("value")->number(), 1.5);
  EXPECT_EQ(metadata.find("one.bool")->find("value")->boolean(), true);
  EXPECT_EQ(*metadata.find("many.u8")->find("type")->text(), "uint8");
  EXPECT_EQ(metadata.find("many.u8")->find("values")->array()->size(), 3u);
  EXPECT_EQ(metadata.find("many.none")->find("count")->integer(), 0);
  EXPECT_TRUE(j.find("tokenizer")->is_null());
}

TEST(Inspect, TheJsonTotalsAddUpTheTensors) {
  const std::vector<uint8_t> bytes = model().bytes();
  const Json j = inspect_json(Gguf::parse(bytes, "m.gguf"), false);
  int64_t tensors = 0, sums = 0;
  for (const Json& t : *j.find("tensors")->array()) tensors += *t.find("bytes")->integer();
  for (const Json& t : *j.find("totals")->array()) sums += *t.find("bytes")->integer();
  EXPECT_EQ(tensors, sums);
  EXPECT_EQ(*j.find("tokenizer")->find("special")->find("bos")->find("text")->text(), "<s>");
}

class InspectCommand : public ::testing::Test {
 protected:
  InspectCommand() {
    std::string name = "/tmp/plumb_inspect.XXXXXX";
    ::close(::mkstemp(name.data()));
    path_ = name;
    GgufWriter w;
    const float weights[] = {0.1f, -1.17549435e-38f, std::numeric_limits<float>::infinity(), 3, 4, 5};
    const auto* p = reinterpret_cast<const uint8_t*>(weights);
    w.add_tensor("a.weight", Format::F32, std::vector<int64_t>{3, 2},
                 std::vector<uint8_t>(p, p + sizeof weights));
    w.add_tensor("a:1", Format::F32, std::vector<int64_t>{1}, std::vector<uint8_t>(4));
    w.write(path_);
  }
  ~InspectCommand() override { ::unlink(path_.c_str()); }

  std::string run(std::vector<std::string> arguments) {
    CLI::App root;
    add_inspect(root);
    arguments.insert(arguments.begin(), {"inspect", path_});
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
    ::testing::internal::CaptureStdout();
    try {
      root.parse(arguments);
    } catch (...) {
      ::testing::internal::GetCapturedStdout();
      throw;
    }
    return ::testing::internal::GetCapturedStdout();
  }

  std::string path_;
};

TEST_F(InspectCommand, ValuesPrintTheRowWithAllDigits) {
  EXPECT_EQ(run({"--values", "a.weight"}),
            "a.weight  F32  [3, 2]  row 0 of 2, 3 of 3 weights\n"
            "       0       0.100000001   -1.17549435e-38               inf\n");
  EXPECT_THAT(run({"--values", "a.weight:1:2"}),
              HasSubstr("row 1 of 2, 2 of 3 weights\n       0                 3"));
  EXPECT_THAT(run({"--values", "a:1"}), HasSubstr("a:1  F32  [1]  row 0 of 1"));
  EXPECT_THAT(run({"--values", "a:1:0:1"}), HasSubstr("a:1  F32  [1]  row 0 of 1"));
}

TEST_F(InspectCommand, ValuesAsJsonGiveTheSameFloatsBack) {
  const Json j = parse_json(run({"--values", "a.weight", "--json"}), "stdout");
  const Json::Array& values = *j.find("values")->array();
  EXPECT_EQ(float(*values[0].number()), 0.1f);
  EXPECT_EQ(float(*values[1].number()), -1.17549435e-38f);
  EXPECT_EQ(*values[2].text(), "inf");
}

TEST_F(InspectCommand, RowsAndCountsOutsideTheTensorAreRefused) {
  for (const char* bad : {"a.weight:2", "a.weight:-1", "a.weight:0:0", "a.weight:0:4", "a.weight:x",
                          "a.weight::1", "a.weight:1e0", "a.weight:99999999999999999999"}) {
    try {
      run({"--values", bad});
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), "usage.values") << bad;
    }
  }
}

TEST_F(InspectCommand, AnUnknownTensorIsAnsweredWithTheNearestNames) {
  try {
    run({"--values", "a.wieght:1"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "usage.tensor");
    EXPECT_EQ(e.where().tensor, "a.wieght");
    EXPECT_EQ(e.remedy(), "did you mean a.weight, a:1");
  }
}

TEST(TerminalText, QuotesKeepLettersOfEveryScriptAndEscapeTheRest) {
  EXPECT_EQ(quote("a\"\\\n\t"), "\"a\\\"\\\\\\n\\t\"");
  EXPECT_EQ(quote("\xe4\xbd\xa0\xc3\xa9\xf0\x9f\x98\x80"), "\"\xe4\xbd\xa0\xc3\xa9\xf0\x9f\x98\x80\"");
  EXPECT_EQ(quote("\x1b[0m\x7f\xff\xc2\x85\xe2\x80\xae"), "\"\\u{1b}[0m\\u{7f}\\xff\\u{85}\\u{202e}\"");
  EXPECT_EQ(quote("e\xcc\x81"), "\"e\xcc\x81\"");
  std::string tower = "e";
  for (int i = 0; i < 100; ++i) tower += "\xcc\x81";
  EXPECT_LT(quote(tower).size(), 20u);
}

TEST(TerminalText, QuotesAreCutToTheirColumns) {
  EXPECT_EQ(quote("abcdef", 8), "\"abcdef\"");
  EXPECT_EQ(quote("abcdef", 7), "\"ab\"...");
  EXPECT_EQ(display_width(quote("\xe4\xbd\xa0\xe4\xbd\xa0\xe4\xbd\xa0\xe4\xbd\xa0", 9)), 9);
  EXPECT_EQ(quote("\n\n\n\n", 8), "\"\\n\"...");
}

TEST(TerminalText, BytesAreReadable) {
  EXPECT_EQ(readable_bytes(1023), "1023 bytes");
  EXPECT_EQ(readable_bytes(98'362'432), "93.8 MiB");
}

}  // namespace
}  // namespace plumb
