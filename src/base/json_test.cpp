#include "base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace plumb {
namespace {

using ::testing::HasSubstr;

std::string again(std::string_view text) { return dump(parse_json(text, "t.json")); }

void expect_refusal(std::string_view text, const std::string& code, int64_t offset,
                    const std::string& pointer, const JsonLimits& limits = {}) {
  SCOPED_TRACE(std::string(text.substr(0, 60)));
  try {
    parse_json(text, "t.json", limits);
    ADD_FAILURE() << "nothing was refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_EQ(e.where().offset, offset) << e.what();
    EXPECT_EQ(e.where().key, pointer);
    EXPECT_FALSE(e.expected().empty() || e.found().empty());
    for (char c : std::string_view(e.what())) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
  }
}

std::string nested(int depth) { return std::string(size_t(depth), '[') + std::string(size_t(depth), ']'); }

TEST(Json, WhatIsParsedIsWrittenAgain) {
  for (const char* text :
       {"null", "true", "-1", "18446744073709551615", "0.1", "-2.0", "1e+300", "\"a\\n\\u001b\"", "[]", "{}",
        "[1,[2],{\"k\":[]}]", "{\"z\":1,\"a\":{\"b\":[true,false,null]}}", "\"\xe2\x82\xac\""}) {
    EXPECT_EQ(again(text), text);
  }
}

TEST(Json, KindsAreKeptApart) {
  const Json j =
      parse_json(R"({"i": 3, "r": 3.0, "b": true, "s": "x", "big": 9223372036854775808})", "t.json");
  EXPECT_EQ(j.find("i")->integer(), 3);
  EXPECT_EQ(j.find("r")->integer(), std::nullopt);
  EXPECT_EQ(j.find("r")->number(), 3.0);
  EXPECT_EQ(j.find("i")->number(), 3.0);
  EXPECT_EQ(j.find("b")->number(), std::nullopt);
  EXPECT_EQ(j.find("b")->boolean(), true);
  EXPECT_EQ(*j.find("s")->text(), "x");
  EXPECT_EQ(j.find("big")->integer(), std::nullopt);
  EXPECT_EQ(j.find("big")->number(), 9223372036854775808.0);
  EXPECT_EQ(j.find("absent"), nullptr);
  EXPECT_EQ(Json(1).find("i"), nullptr);
}

TEST(Json, RealsSurviveWritingAndParsing) {
  for (double v : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789.125}) {
    const std::optional<double> back = parse_json(dump(Json(v)), "t.json").number();
    EXPECT_EQ(back, v);
  }
  EXPECT_EQ(dump(Json(0.1f)), "0.1");
  EXPECT_EQ(dump(Json(std::numeric_limits<double>::infinity())), "null");
  EXPECT_EQ(dump(Json(std::nanf(""))), "null");
}

TEST(Json, SyntaxErrorsPointAtTheirByte) {
  expect_refusal("", "json.syntax", 0, "");
  expect_refusal("[1,]", "json.syntax", 3, "/1");
  expect_refusal("{\"a\":{\"b\" 1}}", "json.syntax", 10, "/a/b");
  expect_refusal("[1] x", "json.syntax", 4, "");
  expect_refusal("[01]", "json.syntax", 2, "/1");
  expect_refusal("// comment\n1", "json.syntax", 0, "");
  expect_refusal("NaN", "json.syntax", 0, "");
}

TEST(Json, TextThatIsNoStrictUtf8IsRefused) {
  for (const char* bad : {"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"",
                          "\"\xe2\x82\"", "\"\\ud800\"", "\"\\udc00\""}) {
    EXPECT_THROW(parse_json(bad, "t.json"), Error) << bad;
  }
}

TEST(Json, DuplicateKeysAreRefusedWithTheirPointer) {
  expect_refusal(R"({"a": 1, "b": {"x/y~": 1, "c": 2, "x/y~": 3}})", "json.duplicate_key", 44, "/b/x~1y~0");
  EXPECT_NO_THROW(parse_json(R"({"a": {"x": 1}, "b": {"x": 1}})", "t.json"));
}

TEST(JsonLimits, DepthOf64IsReadAnd65Refused) {
  EXPECT_EQ(again(nested(64)), nested(64));
  std::string pointer;
  for (int i = 0; i < 64; ++i) pointer += "/0";
  expect_refusal(nested(65), "json.depth", 65, pointer);
  expect_refusal(nested(1'000'000), "json.depth", 65, pointer);
}

TEST(JsonLimits, NodesAndBytesAreCounted) {
  EXPECT_NO_THROW(parse_json("[1,2]", "t.json", {.nodes = 3}));
  expect_refusal("[1,2,3]", "json.nodes", 7, "/2", {.nodes = 3});
  expect_refusal("{\"a\":1}", "json.nodes", 7, "/a", {.nodes = 2});
  EXPECT_NO_THROW(parse_json("[1,2]", "t.json", {.bytes = 5}));
  expect_refusal("[1,2] ", "json.too_large", 0, "", {.bytes = 5});
}

TEST(JsonLimits, NumbersOf64CharactersAreReadAnd65Refused) {
  const std::string digits = "0." + std::string(62, '1');
  EXPECT_NO_THROW(parse_json(digits, "t.json"));
  expect_refusal(digits + "1", "json.number", 65, "");
  expect_refusal("[1e999]", "json.number", 5, "/0");
}

TEST(JsonLimits, AnObjectOf400000KeysTakesNoQuadraticTime) {
  std::string text = "{";
  for (int i = 0; i < 400'000; ++i) {
    text += i ? ",\"" : "\"";
    text += std::to_string(i);
    text += "\":0";
  }
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_json(text + "}", "t.json").object()->size(), 400'000u);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
            20.0);  // linear: 0.3 s; sanitizers: 3 s
}

TEST(JsonDump, BytesThatAreNoUtf8BecomeTheReplacementCharacter) {
  EXPECT_EQ(dump(Json("a\xff")), "\"a\xef\xbf\xbd\"");
  EXPECT_EQ(dump(Json("a\xff"), {.ascii = true}), "\"a\\ufffd\"");
}

TEST(JsonDump, AsciiStyleHasNoByteOutsidePrintableAscii) {
  std::string all;
  for (int c = 0; c < 256; ++c) all += char(c);
  all += "\xc2\x9b\xe2\x80\xae\xf0\x9f\x98\x80";
  for (char c : dump(Json(all), {.ascii = true})) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
}

TEST(JsonDump, IndentsObjectsAndKeepsFlatArraysOnALine) {
  Json j;
  j.set("name", "x");
  j.set("ne", Json::Array{1, 2});
  j.set("list", Json::Array{Json::Object{{"k", true}}});
  EXPECT_EQ(
      dump(j, {.indent = 2}),
      "{\n  \"name\": \"x\",\n  \"ne\": [1, 2],\n  \"list\": [\n    {\n      \"k\": true\n    }\n  ]\n}");
}

}  // namespace
}  // namespace plumb
