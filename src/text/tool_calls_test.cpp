#include "text/tool_calls.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/grammar.h"
#include "text/test_vocabulary.h"
#include "text/tool_prompt.h"

namespace plumb {
namespace {

using Kind = ReplyPart::Kind;

// The reply in pieces of `size` bytes, as one line: content, <reasoning>, {name arguments}.
std::string parsed(const ReplyParser::Options& options, std::string_view reply, size_t size) {
  ReplyParser parser(options);
  std::string line;
  Kind last = Kind::call;
  const auto show = [&](const std::vector<ReplyPart>& parts) {
    for (const ReplyPart& p : parts) {
      if (p.kind != last && p.kind != Kind::call) line += p.kind == Kind::reasoning ? "R:" : "C:";
      last = p.kind;
      line += p.kind == Kind::call ? "{" + p.call.name + " " + p.call.arguments + "}" : p.text;
    }
  };
  for (size_t at = 0; at < reply.size(); at += size) show(parser.push(reply.substr(at, size)));
  show(parser.finish());
  return line;
}

void expect(const ReplyParser::Options& options, std::string_view reply, const char* line) {
  for (size_t size : {1, 2, 3, 5, 7, 13, 1000})
    EXPECT_EQ(parsed(options, reply, size), line) << reply << " by " << size;
}

TEST(ReplyParser, FindsHermesCallsHoweverTheTextIsCut) {
  const ReplyParser::Options o{.style = ToolStyle::hermes, .reasoning = true};
  expect(o, "plain <tool> text\n", "C:plain <tool> text\n");
  expect(
      o,
      "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>}\"}}\n</tool_call>",
      "C:Let me see.{f {\"a\":\"</tool_call>}\"}}");
  expect(o,
         "<think>\nhm <b> "
         "</thin\n</think>\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>"
         "{\"name\":\"g\",\"arguments\":{\"x\":[1]}}</tool_call>",
         "R:hm <b> </thin{f {}}{g {\"x\":[1]}}");
  expect(o, "<tool_call>no</tool_call> x", "C:<tool_call>no</tool_call> x");
  expect(o, "<tool_call>{\"name\":1}</tool_call>", "C:<tool_call>{\"name\":1}</tool_call>");
  expect(o, "a <tool_call>{\"name\":", "C:a <tool_call>{\"name\":");
  expect({.style = ToolStyle::hermes, .reasoning = true, .in_thought = true}, "so</think>\nyes", "R:soC:yes");
}

TEST(ReplyParser, FindsLlamaAndMistralCalls) {
  const ReplyParser::Options llama{.style = ToolStyle::llama3};
  expect(llama, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"g\", \"parameters\": {}}",
         "{f {\"a\":1}}{g {}}");
  expect(llama, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "{f {}}");
  expect(llama, " {\"city\": \"Rome\"} it is", "C: {\"city\": \"Rome\"} it is");
  expect(llama, "See {\"name\": \"f\", \"parameters\": {}}", "C:See {\"name\": \"f\", \"parameters\": {}}");
  const ReplyParser::Options mistral{.style = ToolStyle::mistral};
  expect(mistral,
         "ok [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"s\": "
         "\"]\"}}]",
         "C:ok{f {}}{g {\"s\":\"]\"}}");
  expect(mistral, "[TOOL_CALLS", "C:[TOOL_CALLS");
}

TEST(ReplyParser, IdsDifferWithinAReplyAndBetweenSeeds) {
  std::vector<std::string> ids;
  for (uint64_t seed : {1, 2}) {
    ReplyParser p({.style = ToolStyle::mistral, .id_seed = seed});
    for (const ReplyPart& part :
         p.push("[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}},{\"name\":\"f\",\"arguments\":{}}]")) {
      ids.push_back(part.call.id);
    }
  }
  ASSERT_EQ(ids.size(), 4u);
  EXPECT_EQ(ids[0].size(), 9u);
  for (size_t i = 0; i < 4; ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(ids[i], ids[j]);
  }
}

const char* kTools = R"g([
  {"type": "function", "function": {"name": "weather", "strict": true, "parameters":
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false}}},
  {"type": "function", "function": {"name": "now"}}])g";

struct ToolSetting {
  ToolSetting()
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

bool fits_tools(const ToolGrammar& options, std::string_view text) {
  static const ToolSetting s;
  GrammarState state(Grammar::parse(tool_grammar(options, &s.tokenizer), &s.tokenizer), s.tokens);
  return state.accept_text(text) && state.can_end();
}

TEST(ToolGrammar, ARequiredCallIsTheOnlyText) {
  const std::vector<Tool> tools = read_tools(parse_json(kTools, "tools"));
  ToolGrammar o{.style = ToolStyle::hermes, .tools = tools, .required = true};
  const std::string call =
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";
  const std::string other = "<tool_call>{\"name\": \"now\", \"arguments\": {\"any\": [1, {}]}}</tool_call>";
  EXPECT_TRUE(fits_tools(o, call));
  EXPECT_TRUE(fits_tools(o, call + "\n" + other));
  EXPECT_FALSE(fits_tools(o, "hello"));
  EXPECT_FALSE(fits_tools(
      o, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Rome\"}}\n</tool_call>"));
  EXPECT_FALSE(fits_tools(o, "<think>a</think>" + call));
  o.reasoning = true;
  EXPECT_TRUE(fits_tools(o, "<think>a </thi </think>\n" + call));
  o.parallel = false;
  EXPECT_FALSE(fits_tools(o, call + "\n" + other));
  o.named = "now";
  EXPECT_FALSE(fits_tools(o, call));
  EXPECT_TRUE(fits_tools(o, other));
  o.named = "then";
  EXPECT_THROW(fits_tools(o, other), Error);
}

TEST(ToolGrammar, TextIsFreeUntilTheMarkOfACall) {
  const std::vector<Tool> tools = read_tools(parse_json(kTools, "tools"));
  const ToolGrammar hermes{.style = ToolStyle::hermes, .tools = tools};
  EXPECT_TRUE(fits_tools(hermes, "hello <tool_<tool_cal l> {"));
  EXPECT_TRUE(fits_tools(hermes, ""));
  EXPECT_TRUE(fits_tools(hermes, "so: <<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>"));
  EXPECT_FALSE(fits_tools(hermes, "so: <tool_call> no"));
  const ToolGrammar llama{.style = ToolStyle::llama3, .tools = tools};
  EXPECT_TRUE(fits_tools(llama, "hello {"));
  EXPECT_TRUE(fits_tools(llama, "{\"name\": \"now\", \"parameters\": {}}"));
  EXPECT_FALSE(fits_tools(llama, "{\"name\": \"then\", \"parameters\": {}}"));
  const ToolGrammar mistral{.style = ToolStyle::mistral, .tools = tools};
  EXPECT_TRUE(fits_tools(mistral, "a [TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}}]"));
  EXPECT_FALSE(fits_tools(mistral, "a [TOOL_CALLS]{}"));
}

TEST(ToolGrammar, OnlyStrictToolsAreRefusedForTheirSchema) {
  std::vector<Tool> tools = read_tools(parse_json(kTools, "tools"));
  tools[0].parameters = parse_json(R"({"type": "object", "not": {}})", "schema");
  EXPECT_THROW(tool_grammar({.style = ToolStyle::hermes, .tools = tools}, nullptr), Error);
  tools[0].strict = false;
  EXPECT_NO_THROW(tool_grammar({.style = ToolStyle::hermes, .tools = tools}, nullptr));
}

TEST(ToolStyle, IsReadOffTheTemplate) {
  EXPECT_EQ(tool_style("{% if tools %}<tool_call>\n{\"name\": <function-name>}"), ToolStyle::hermes);
  EXPECT_EQ(tool_style("<|start_header_id|> tools {\"name\": function name, \"parameters\": }"),
            ToolStyle::llama3);
  EXPECT_EQ(tool_style("[AVAILABLE_TOOLS] [TOOL_CALLS]"), ToolStyle::mistral);
  EXPECT_EQ(tool_style("<tool_call><function=f><parameter=x>"), ToolStyle::none);
  EXPECT_EQ(tool_style("<|im_start|>"), ToolStyle::hermes);  // in words
  EXPECT_EQ(tool_style("<|user|>"), ToolStyle::none);
}

TEST(ToolPrompt, TellsToolsCallsAndResultsInWords) {
  const Json messages = parse_json(
      R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Rain?"},{"role":"assistant","content":null,
          "tool_calls":[{"id":"x","type":"function","function":{"name":"rain","arguments":{"in":"Rome"}}}]},
          {"role":"tool","content":"no"}])",
      "messages");
  const Json tools = parse_json(R"([{"type":"function","function":{"name":"rain"}}])", "tools");
  const Json::Array told = *tools_in_words(messages, tools).array();
  ASSERT_EQ(told.size(), 4u);
  const std::string& system = *told[0].find("content")->text();
  EXPECT_TRUE(system.starts_with("Be brief.\n\nYou are an expert in composing functions."));
  EXPECT_NE(system.find("<tools>" + dump(tools) + "</tools>"), std::string::npos);
  EXPECT_EQ(*told[2].find("content")->text(),
            R"(<tool_call>[{"name":"rain","arguments":{"in":"Rome"}}]</tool_call>)");
  EXPECT_EQ(tools_in_words(parse_json(R"([{"role":"user","content":"Hi"}])", "m"), tools).array()->size(),
            2u);
  EXPECT_EQ(dump(tools_in_words(told, Json())), dump(Json(told)));  // nothing is told twice
}

}  // namespace
}  // namespace plumb
