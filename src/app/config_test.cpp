#include "app/config.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace plumb {
namespace {

std::string refusal(std::string_view text) {
  try {
    parse_config(text, "c.toml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "usage.config");
    return e.what();
  }
  return "";
}

void expect_in(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

const ConfigKey& key(std::string_view section, std::string_view name) {
  for (const ConfigKey& k : config_keys()) {
    if (k.section == section && k.key == name) return k;
  }
  throw std::out_of_range("no such key");
}

TEST(Config, EveryTypeIsReadInTheOrderOfTheFile) {
  const auto entries = parse_config(
      "[generation]\ntemperature = 1\ntop_p = 0.5\nmax_tokens = -1\n[interface]\ntimings = true\n"
      "prompt_user = 'A> '\n[server]\ncors_origins = [\"a\", \"b\"]\n",
      "c.toml");
  ASSERT_EQ(entries.size(), 6u);
  EXPECT_EQ(entries[0].key->flag, "--temperature");
  EXPECT_EQ(entries[0].values, std::vector<std::string>{"1"});
  EXPECT_EQ(entries[1].values, std::vector<std::string>{"0.5"});
  EXPECT_EQ(entries[3].values, std::vector<std::string>{"true"});
  EXPECT_EQ(entries[4].values, std::vector<std::string>{"A> "});
  EXPECT_EQ(entries[5].values, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(entries[2].line, 4u);
}

TEST(Config, AnUnknownKeyIsRefusedWithLineAndColumn) {
  const std::string text = refusal("[generation]\ntop_k = 1\n temprature = 1\n");
  expect_in("c.toml:3:2", text);
  expect_in("did you mean temperature?", text);
}

TEST(Config, AnUnknownSectionIsRefused) {
  expect_in("[generation]", refusal("\n[generations]\ntop_k = 1\n"));
}

TEST(Config, AWrongTypeIsRefusedWithLineAndColumn) {
  const std::string text = refusal("[generation]\ntop_k = \"many\"\n");
  expect_in("c.toml:2:9", text);
  expect_in("a whole number for top_k", text);
  expect_in("c.toml:1:19", refusal("server = { port = 'x' }"));
  expect_in("c.toml:2:9", refusal("[generation]\ntop_k = 1.5\n"));
  expect_in("c.toml:2:13", refusal("[interface]\nmultiline = 1\n"));
}

TEST(Config, WhatIsNoTomlIsRefusedWithLineAndColumn) {
  expect_in("c.toml:2:", refusal("[generation]\ntop_k = = 1\n"));
  expect_in("c.toml:3:", refusal("[generation]\ntop_k = 1\ntop_k = 2\n"));
  expect_in("c.toml:1:", refusal("\x1b[31m = 1"));
  EXPECT_EQ(refusal("\x1b[31m = 1").find('\x1b'), std::string::npos);
}

TEST(Config, AnEditKeepsEverythingElse) {
  const std::string before =
      "# mine\n[generation]  # how\ntop_k = 40   # forty\ntemperature = 0.5\n\n[model]\npath = \"a "
      "b.gguf\"\n";
  EXPECT_EQ(edit_config(before, key("generation", "top_k"), "7"),
            "# mine\n[generation]  # how\ntop_k = 7   # forty\ntemperature = 0.5\n\n[model]\npath = \"a "
            "b.gguf\"\n");
  EXPECT_EQ(edit_config(before, key("model", "path"), config_value(ConfigType::text, "x\"\\.gguf")),
            "# mine\n[generation]  # how\ntop_k = 40   # forty\ntemperature = 0.5\n\n[model]\n"
            "path = \"x\\\"\\\\.gguf\"\n");
  EXPECT_EQ(edit_config(before, key("generation", "top_p"), "0.9"),
            "# mine\n[generation]  # how\ntop_p = 0.9\ntop_k = 40   # forty\ntemperature = 0.5\n\n[model]\n"
            "path = \"a b.gguf\"\n");
  EXPECT_EQ(edit_config("", key("backend", "threads"), "2"), "[backend]\nthreads = 2\n");
  EXPECT_EQ(edit_config("[model]", key("backend", "threads"), "2"), "[model]\n\n[backend]\nthreads = 2\n");
  EXPECT_EQ(edit_config("[generation]\ntop_k = 1", key("generation", "top_k"), "22"),
            "[generation]\ntop_k = 22");
  EXPECT_EQ(edit_config("[model] # \xC3\xA9\npath = '\xC3\xA9\xE6\x97\xA5' # \xC3\xA9\n",
                        key("model", "path"), "\"b\""),
            "[model] # \xC3\xA9\npath = \"b\" # \xC3\xA9\n");
}

TEST(Config, AnEditThatWouldNotSayWhatIsMeantIsRefused) {
  for (const char* text : {"generation.top_k = 1\n", "generation = { top_k = 1 }\n"}) {
    EXPECT_THROW(edit_config(text, key("generation", "top_p"), "0.5"), Error) << text;
  }
}

TEST(Config, RandomTextGivesEntriesOrAnError) {
  std::mt19937 random(11);
  const std::string good = "[generation]\ntop_k = 40\nsamplers = \"a;b\"\n[server]\nallow_host = [\"a\"]\n";
  for (int round = 0; round < 5000; ++round) {
    std::string text = good;
    for (size_t n = random() % 5; n > 0; --n) {
      char& c = text[random() % text.size()];
      c = random() % 2 ? char(random()) : "[]=\"'\n#{},."[random() % 11];
    }
    try {
      parse_config(text, "c.toml");
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), "usage.config");
    }
  }
}

}  // namespace
}  // namespace plumb
