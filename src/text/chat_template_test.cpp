#include "text/chat_template.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace plumb {
namespace {

std::string render(std::string_view source, const TemplateLimits& limits = {}) {
  return ChatTemplate::parse(source).render(
      {.messages = parse_json(R"([{"role":"user","content":"Hi"}])", "test"), .tools = {}, .variables = {}},
      limits);
}

std::string failure(std::string_view source, const TemplateLimits& limits = {}) {
  try {
    return "text of " + std::to_string(render(source, limits).size()) + " bytes";
  } catch (const Error& e) {
    return e.code() + " " + e.where().key;
  }
}

std::string repeated(std::string_view s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

TEST(ChatTemplate, RendersMessagesWithWhitespaceControl) {
  EXPECT_EQ(render("{% for m in messages %}\n  <{{ m.role }}>{{ m['content'] }}\n  {%- endfor %}\n\n"),
            "  <user>Hi");
}

TEST(ChatTemplate, ErrorsNameLineAndColumnOfTheTemplate) {
  EXPECT_EQ(failure("a\n {{ nothing.x }}"), "template.undefined line 2, column 12");
  EXPECT_EQ(failure("a\n\n{% if %}"), "template.syntax line 3, column 7");
  EXPECT_EQ(failure("{{ raise_exception('no') }}"), "template.raised line 1, column 19");
}

TEST(ChatTemplate, LeavesTheValuesItWasGivenAsTheyWere) {
  EXPECT_EQ(failure("{{ messages.append(1) }}"), "template.undefined line 1, column 19");
  EXPECT_EQ(failure("{{ messages[0].pop('role') }}"), "template.undefined line 1, column 19");
}

TEST(ChatTemplate, ReachesNothingThroughNamesWithUnderscores) {
  EXPECT_EQ(render("{{ ''.__class__ is defined }}{{ messages.__class__ is defined }}"), "FalseFalse");
  EXPECT_TRUE(failure("{% set n = namespace() %}{% set n._x = 1 %}").starts_with("template.security"));
}

// Each of these takes a naive interpreter seconds or gigabytes.
TEST(ChatTemplate, StopsTemplatesThatWouldNeverEndOrFillTheMemory) {
  const std::string hard[] = {
      "{{ range(10**10) }}",
      "{{ range(100001)|list }}",
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{{ 'x' * 10**10 }}",
      "{{ [1] * 10**10 }}",
      "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
      "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
      "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = n.l + n.l %}{% endfor %}",
      "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
      "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ "
      "n.l|tojson }}",
      "{% set n = namespace(l=[1]) %}{% for i in range(999) %}{% set n.l = [n.l] %}{% endfor %}",
      "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
      "{% for x in range(99999) %}{{ 'y' * 9999 }}{% endfor %}",
      "{{ ('a' * 9999999)|replace('', 'b' * 9999) }}",
      "{{ ('a' * 9999999)|replace('a', 'b' * 9999) }}",
      "{{ 'a'.center(10**12) }}",
      "{{ 'a'|indent(10**12) }}",
      "{{ '%999999999d' % 1 }}",
      "{{ ('a\n' * 99999)|indent(99999) }}",
      "{{ range(99999)|join('x' * 99999) }}",
      "{{ ('x' * 9999).join(('a,' * 99999).split(',')) }}",
      "{{ [[[1]]]|tojson(indent=10**8) }}",
      "{{ 2 ** 10 ** 9 }}",
      "{{ " + repeated("(", 10'000) + "1" + repeated(")", 10'000) + " }}",
      "{{ " + repeated("-", 10'000) + "1 }}",
      "{{ 1" + repeated("+1", 10'000) + " }}",
      "{{ x" + repeated(".x", 10'000) + " }}",
      "{{ x" + repeated("|e", 10'000) + " }}",
      repeated("{% if 1 %}", 10'000),
      repeated("{% for x in y %}", 10'000),
  };
  for (const std::string& source : hard) {
    EXPECT_TRUE(failure(source).starts_with("template.limit") ||
                failure(source).starts_with("template.value"))
        << source.substr(0, 100) << ": " << failure(source);
  }
}

TEST(ChatTemplate, TakesExactlyItsLimitOfOutput) {
  EXPECT_EQ(render("{{ 'x' * 100 }}", {.output_bytes = 100}).size(), 100u);
  EXPECT_EQ(failure("{{ 'x' * 101 }}", {.output_bytes = 100}), "template.limit line 1, column 8");
}

TEST(ChatTemplate, TakesExactlyItsLimitOfSource) {
  EXPECT_EQ(render(std::string(size_t(kMaxTemplateBytes), 'x')).size(), size_t(kMaxTemplateBytes));
  EXPECT_TRUE(failure(std::string(size_t(kMaxTemplateBytes) + 1, 'x')).starts_with("template.too_large"));
}

TEST(ChatTemplate, MoreVariablesReplaceTheUsualOnes) {
  const ChatTemplate t = ChatTemplate::parse("{{ bos_token }}{{ enable_thinking }}");
  EXPECT_EQ(t.render({.messages = {},
                      .tools = {},
                      .variables = parse_json(R"({"bos_token":"B","enable_thinking":false})", "test"),
                      .bos_token = "A"}),
            "BFalse");
}

}  // namespace
}  // namespace plumb
