#include "text/json_schema.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/grammar.h"
#include "text/test_vocabulary.h"

namespace plumb {
namespace {

struct SchemaSetting {
  SchemaSetting()
      : vocabulary(TestVocabulary::bpe("llama-bpe")),
        file(vocabulary.file()),
        tokenizer(Tokenizer::load(file)) {
    tokens = std::make_shared<const GrammarVocabulary>(tokenizer);
  }
  TestVocabulary vocabulary;
  Gguf file;
  Tokenizer tokenizer;
  std::shared_ptr<const GrammarVocabulary> tokens;
};

bool fits_grammar(const std::string& grammar, std::string_view text) {
  static const SchemaSetting s;
  GrammarState state(Grammar::parse(grammar), s.tokens);
  return state.accept_text(text) && state.can_end();
}

bool follows(std::string_view schema, std::string_view text) {
  return fits_grammar(json_schema_grammar(parse_json(schema, "schema")), text);
}

Error schema_refusal(std::string_view schema) {
  try {
    json_schema_grammar(parse_json(schema, "schema"));
  } catch (const Error& e) {
    return e;
  }
  return Error({.code = "accepted"});
}

TEST(JsonSchema, MembersComeInOrderAndOnlyTheRequiredMustCome) {
  const char* s =
      R"({"type":"object","properties":{"a":{"type":"null"},"b":{"type":"boolean"},"c":{"const":"\"x"}},
    "required":["b"]})";
  EXPECT_TRUE(follows(s, R"({"b":true})"));
  EXPECT_TRUE(follows(s, R"({ "a": null, "b": false, "c": "\"x" })"));
  EXPECT_FALSE(follows(s, R"({"a":null})"));
  EXPECT_FALSE(follows(s, R"({"b":true,"a":null})"));
  EXPECT_FALSE(follows(s, R"({"b":true,"d":1})"));
}

TEST(JsonSchema, OtherMembersNeverTakeANameOfTheSchema) {
  const char* s = R"({"type":"object","properties":{"name":{"type":"integer"},"na":{"type":"integer"}},
    "additionalProperties":{"type":"null"}})";
  EXPECT_TRUE(follows(s, R"({"name":1,"nam":null,"names":null,"n":null,"":null,"x":null})"));
  EXPECT_TRUE(follows(s, R"({"x":null})"));
  EXPECT_FALSE(follows(s, R"({"x":null,"name":null})"));
  EXPECT_FALSE(follows(s, R"({"na":null})"));
  EXPECT_FALSE(follows(s, R"({"n\u0061":null})"));
}

TEST(JsonSchema, EveryIntegerBetweenBoundsAndNoOtherIsAdmitted) {
  for (const auto& [low, high] : {std::pair(-12, 105), {0, 0}, {7, 7}, {98, 1203}, {-31, -9}}) {
    Json s;
    s.set("type", "integer");
    s.set("minimum", low);
    s.set("maximum", high);
    const std::string grammar = json_schema_grammar(s);
    for (int i = -1500; i <= 1500; ++i) {
      ASSERT_EQ(fits_grammar(grammar, std::to_string(i)), low <= i && i <= high)
          << low << " " << high << " " << i;
    }
  }
  EXPECT_FALSE(follows(R"({"type":"integer"})", "01"));
  EXPECT_TRUE(follows(R"({"type":"number","exclusiveMinimum":0,"maximum":1})", "0.25"));
  EXPECT_TRUE(follows(R"({"type":"number","exclusiveMinimum":0,"maximum":1})", "1"));
  EXPECT_FALSE(follows(R"({"type":"number","exclusiveMinimum":0,"maximum":1})", "0.0"));
  EXPECT_FALSE(follows(R"({"type":"number","exclusiveMinimum":0,"maximum":1})", "1.5"));
}

TEST(JsonSchema, TuplesAndCountsBindArrays) {
  const char* s =
      R"({"prefixItems":[{"type":"null"},{"type":"integer"}],"items":{"type":"boolean"},"minItems":1,"maxItems":3})";
  for (const char* text : {"[null]", "[null, 1]", "[null,1,true]"}) EXPECT_TRUE(follows(s, text)) << text;
  for (const char* text : {"[]", "[1]", "[null,true]", "[null,1,true,true]"})
    EXPECT_FALSE(follows(s, text)) << text;
  EXPECT_TRUE(follows(R"({"type":"array","items":{"const":1},"minItems":2})", "[1,1,1]"));
  EXPECT_FALSE(follows(R"({"type":"array","items":{"const":1},"minItems":2})", "[1]"));
}

TEST(JsonSchema, ReferencesMayRecur) {
  const char* s =
      R"({"$ref":"#/$defs/a~1b","$defs":{"a/b":{"type":"object","properties":{"next":{"$ref":"#/$defs/a~1b"}}}}})";
  EXPECT_TRUE(follows(s, R"({"next":{"next":{}}})"));
  EXPECT_FALSE(follows(s, R"({"next":{"next":1}})"));
}

TEST(JsonSchema, WhatMustHoldTogetherIsMerged) {
  const char* s = R"({"$ref":"#/$defs/p","required":["x"],"$defs":{"p":{"type":"object","properties":
    {"x":{"type":["integer","null"]},"y":{"type":"integer"}}}},"properties":{"x":{"type":["null","string"]}}})";
  EXPECT_TRUE(follows(s, R"({"x":null,"y":1})"));
  EXPECT_FALSE(follows(s, R"({"x":1})"));
  EXPECT_FALSE(follows(s, R"({"y":1})"));
}

TEST(JsonSchema, PatternsSearchAndFormatsBind) {
  EXPECT_TRUE(follows(R"({"type":"string","pattern":"^a[\\d\"]+$"})", R"("a1\"2")"));
  EXPECT_FALSE(follows(R"({"type":"string","pattern":"^a[\\d\"]+$"})", R"("xa1")"));
  EXPECT_TRUE(follows(R"({"type":"string","pattern":"b"})", R"("abc")"));
  EXPECT_TRUE(follows(R"({"type":"string","format":"date"})", R"("2024-02-29")"));
  EXPECT_FALSE(follows(R"({"type":"string","format":"date"})", R"("2023-02-29")"));
  EXPECT_TRUE(follows(R"({"type":"string","minLength":2,"maxLength":3})", "\"\u00e9\\n\U0001F600\""));
  EXPECT_FALSE(follows(R"({"type":"string","minLength":2,"maxLength":3})", "\"\u00e9\""));
}

TEST(JsonSchema, AnyObjectIsAnObject) {
  EXPECT_TRUE(fits_grammar(json_object_grammar(), R"({"a": [1, -2.5e3, {"b": "\u00e9"}], "c": null})"));
  EXPECT_FALSE(fits_grammar(json_object_grammar(), "[1]"));
  EXPECT_FALSE(fits_grammar(json_object_grammar(), R"({"a": "\ud800"})"));
}

TEST(JsonSchema, RefusalsNameTheKeywordAndItsPlace) {
  const struct {
    const char *schema, *code, *place;
  } cases[] = {
      {R"({"properties":{"a/b":{"not":{}}}})", "schema.unsupported", "#/properties/a~1b/not"},
      {R"({"type":"strin"})", "schema.value", "#/type"},
      {R"({"items":3})", "schema.value", "#/items"},
      {R"({"uniqueItems":true})", "schema.unsupported", "#/uniqueItems"},
      {R"({"anyOf":[{},{"format":"color","type":"string"}]})", "schema.unsupported", "#/anyOf/1/format"},
      {R"({"$ref":"other.json"})", "schema.reference", "#/$ref"},
      {R"({"$ref":"#/$defs/x"})", "schema.reference", "#/$ref"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "schema.unsupported", "#/oneOf"},
      {R"x({"type":"string","pattern":"(?=a)"})x", "schema.unsupported", "#/pattern"},
      {R"({"type":"string","maxLength":2001})", "schema.limit", "#/maxLength"},
      {R"({"type":"integer","minimum":3,"maximum":2})", "schema.unsatisfiable", "#"},
      {"false", "schema.unsatisfiable", "#"},
      {"[]", "schema.value", "#"},
  };
  for (const auto& c : cases) {
    const Error e = schema_refusal(c.schema);
    EXPECT_EQ(e.code(), c.code) << c.schema << ": " << e.what();
    EXPECT_NE(e.where().key.find(c.place), std::string::npos) << e.what();
  }
  EXPECT_EQ(schema_refusal(R"({"type":"string","maxLength":2000})").code(), "accepted");
}

}  // namespace
}  // namespace plumb
