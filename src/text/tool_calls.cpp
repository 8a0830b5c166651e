// Templates' families and grammars for their calls; the parser is in tool_calls_parse.cpp.
#include "text/tool_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "text/json_schema.h"
#include "text/tool_prompt.h"

namespace plumb {
namespace {

constexpr size_t kMaxTools = 128, kMaxNameBytes = 64;

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

[[noreturn]] void refuse(const std::string& pointer, std::string expected, std::string found) {
  throw Error({.code = "tools.value",
               .expected = std::move(expected),
               .found = printable(found, 200),
               .where = {.key = pointer}});
}

// A mark in a grammar: the control token where the vocabulary has it, else its characters.
std::string mark_body(std::string_view mark, const Tokenizer* tokenizer) {
  if (tokenizer) {
    const std::vector<int> ids = tokenizer->encode(mark, {.add_special = false, .parse_special = true});
    if (ids.size() == 1 && tokenizer->type(ids[0]) == TokenType::control)
      return fmt::format("<[{}]>", ids[0]);
  }
  return gbnf_literal(mark);
}

// Text up to the first place where the mark ends, the mark included, and then `behind`; where `may_end`, also
// text without the mark. A rule per character of the mark seen so far: Knuth, Morris & Pratt 1977.
std::string until(SchemaRules& rules, const std::string& prefix, std::string_view mark,
                  const std::string& behind, bool may_end) {
  const auto after = [&](size_t seen, char c) {  // the longest beginning of the mark that ends here
    const std::string text = std::string(mark.substr(0, seen)) + c;
    size_t n = std::min(mark.size(), text.size());
    while (n > 0 && text.substr(text.size() - n) != mark.substr(0, n)) --n;
    return n;
  };
  const std::set<char> letters(mark.begin(), mark.end());
  std::string others;
  for (char c : letters) others += fmt::format("\\x{:02X}", uint8_t(c));
  for (size_t seen = 0; seen < mark.size(); ++seen) {
    std::string body = fmt::format("{}[^{}] {}0", may_end ? "\"\" | " : "", others, prefix);
    for (char c : letters) {
      const size_t n = after(seen, c);
      body += fmt::format(" | {} {}", gbnf_literal(std::string(1, c)),
                          n == mark.size() ? behind : fmt::format("{}{}", prefix, n));
    }
    rules.define(fmt::format("{}{}", prefix, seen), body);
  }
  return prefix + "0";
}

std::string arguments_rule(SchemaRules& rules, const Tool& tool, size_t index) {
  if (tool.parameters.is_null()) return rules.any_object();
  const std::string where = fmt::format("#/tools/{}/function/parameters", index);
  try {
    // Tried apart first, so that nothing of a refused schema stays behind.
    SchemaRules().add(tool.parameters, where);
  } catch (const Error& e) {
    if (tool.strict || (e.code() != "schema.unsupported" && e.code() != "schema.limit")) throw;
    return rules.any_object();
  }
  return rules.add(tool.parameters, where);
}

}  // namespace

const char* name(ToolStyle style) {
  switch (style) {
    case ToolStyle::hermes:
      return "hermes";
    case ToolStyle::llama3:
      return "llama3";
    case ToolStyle::mistral:
      return "mistral";
    case ToolStyle::none:
      break;
  }
  return "none";
}

ToolStyle tool_style(std::string_view t) {
  if (has(t, "[TOOL_CALLS]")) return ToolStyle::mistral;
  // Others write <tool_call> with XML or with keys of their own inside.
  const bool own = has(t, "<function=") || has(t, "<arg_key>") || has(t, "<parameter=");
  if (has(t, "<tool_call>") && !own) return ToolStyle::hermes;
  if (has(t, "<|start_header_id|>") && has(t, "\"parameters\"") && has(t, "tools")) return ToolStyle::llama3;
  if (has(t, "<|python_tag|>") && !has(t, "<function=")) return ToolStyle::llama3;
  if (needs_tools_in_words(t)) return ToolStyle::hermes;
  return ToolStyle::none;
}

bool writes_reasoning(std::string_view t) { return has(t, "</think>"); }

std::vector<Tool> read_tools(const Json& tools) {
  std::vector<Tool> out;
  if (!tools.array() || tools.array()->size() > kMaxTools) {
    refuse("/tools", fmt::format("an array of at most {} tools", kMaxTools), dump(tools));
  }
  for (size_t i = 0; i < tools.array()->size(); ++i) {
    const Json& tool = (*tools.array())[i];
    const std::string at = fmt::format("/tools/{}", i);
    const Json *type = tool.find("type"), *function = tool.find("function");
    if (type && (!type->text() || *type->text() != "function"))
      refuse(at + "/type", "\"function\"", dump(*type));
    if (!function || !function->object())
      refuse(at + "/function", "an object", function ? dump(*function) : "none");
    const Json *n = function->find("name"), *parameters = function->find("parameters"),
               *strict = function->find("strict");
    const auto in_name = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
             c == '-' || c == '.';
    };
    if (!n || !n->text() || n->text()->empty() || n->text()->size() > kMaxNameBytes ||
        !std::all_of(n->text()->begin(), n->text()->end(), in_name)) {
      refuse(at + "/function/name", fmt::format("1 to {} letters, digits, _ . or -", kMaxNameBytes),
             n ? dump(*n) : "none");
    }
    if (std::any_of(out.begin(), out.end(), [&](const Tool& t) { return t.name == *n->text(); })) {
      refuse(at + "/function/name", "each name once", *n->text());
    }
    if (parameters && !parameters->object() && !parameters->is_null()) {
      refuse(at + "/function/parameters", "a JSON schema", dump(*parameters));
    }
    if (strict && !strict->boolean() && !strict->is_null())
      refuse(at + "/function/strict", "a boolean", dump(*strict));
    out.push_back(
        {*n->text(), parameters ? *parameters : Json(), strict && strict->boolean().value_or(false)});
  }
  return out;
}

std::string tool_grammar(const ToolGrammar& o, const Tokenizer* tokenizer) {
  if (o.style == ToolStyle::none)
    refuse("/tools", "a chat template whose way of calling tools is known", "another");
  SchemaRules rules;
  const std::string ws = rules.space();
  const char* key = o.style == ToolStyle::llama3 ? "parameters" : "arguments";
  std::string objects;
  for (size_t i = 0; i < o.tools.size(); ++i) {
    const Tool& tool = o.tools[i];
    if (!o.named.empty() && tool.name != o.named) continue;
    const std::string object =
        rules.rule(fmt::format("\"{{\" {0} \"\\\"name\\\"\" {0} \":\" {0} {1} {0} \",\" {0} \"\\\"{2}\\\"\" "
                               "{0} \":\" {0} {3} {0} \"}}\"",
                               ws, gbnf_literal(dump(Json(tool.name))), key, arguments_rule(rules, tool, i)));
    objects += (objects.empty() ? "" : " | ") + object;
  }
  if (objects.empty()) refuse("/tool_choice", "one of the tools", o.named.empty() ? "no tools" : o.named);
  const std::string object = rules.rule(objects);
  const bool required = o.required || !o.named.empty();
  const std::string more = o.parallel ? "*" : "{0}";
  std::string root;
  if (o.style == ToolStyle::hermes || o.style == ToolStyle::mistral) {
    const bool hermes = o.style == ToolStyle::hermes;
    const std::string_view text = hermes ? "<tool_call>" : "[TOOL_CALLS]";
    const std::string mark = mark_body(text, tokenizer);
    std::string behind;  // the first mark
    if (hermes) {
      const std::string rest =
          fmt::format("{} {} {} {}", ws, object, ws, mark_body("</tool_call>", tokenizer));
      behind = rules.rule(fmt::format("{} ({} {} {}){}", rest, ws, mark, rest, more));
    } else {
      behind = rules.rule(fmt::format("{0} \"[\" {0} {1} (\",\" {0} {1}){2} {0} \"]\"", ws, object, more));
    }
    root = required              ? mark + " " + behind
           : mark.front() == '<' ? fmt::format(".* ({} {})?", mark, behind)
                                 : until(rules, "text", text, behind, true);
  } else {
    const std::string tag = mark_body("<|python_tag|>", tokenizer);
    const std::string calls =
        rules.rule(fmt::format("({})? {} (\";\" {} {}){}", tag, object, ws, object, more));
    root = required ? calls : fmt::format("{} | [ \\t\\n]* ([^{{ \\t\\n] .*)?", calls);
  }
  if (o.in_thought || (o.reasoning && required)) {
    const std::string body = rules.rule(root);
    const std::string close = mark_body("</think>", tokenizer);
    const std::string thought =
        close.front() == '<' ? rules.rule(fmt::format(".* {} {} {}", close, ws, body))
                             : until(rules, "thought", "</think>", fmt::format("{} {}", ws, body), false);
    root = o.in_thought ? thought : fmt::format("{} {} | {}", mark_body("<think>", tokenizer), thought, body);
  }
  return rules.text(root);
}

Json ToolCall::json() const {
  Json function;
  function.set("name", name);
  function.set("arguments", arguments);
  Json out;
  out.set("id", id);
  out.set("type", "function");
  out.set("function", std::move(function));
  return out;
}

}  // namespace plumb
