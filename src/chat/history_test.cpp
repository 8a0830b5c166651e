#include "chat/history.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace plumb {
namespace {

std::string refusal(std::string_view text) {
  try {
    parse_history(text, "h.json");
  } catch (const Error& e) {
    return e.code() + " " + e.where().key;
  }
  return "";
}

History example() {
  History h;
  h.created = 1764000000;
  h.model = "m.gguf";
  h.fingerprint = "12ab";
  h.system = "Be brief.";
  Json more;
  more.set("seed", 7);
  h.messages = {{"user", "Hi \xC3\xA9\n\"x\"", 1764000001}, {"assistant", "Hello.", 1764000002, more}};
  return h;
}

TEST(History, WhatIsSavedIsLoadedAgain) {
  const History h = parse_history(to_json(example()), "h.json");
  EXPECT_EQ(h.created, 1764000000);
  EXPECT_EQ(h.model, "m.gguf");
  EXPECT_EQ(h.fingerprint, "12ab");
  EXPECT_EQ(h.system, "Be brief.");
  ASSERT_EQ(h.messages.size(), 2u);
  EXPECT_EQ(h.messages[0].content, "Hi \xC3\xA9\n\"x\"");
  EXPECT_EQ(h.messages[1].time, 1764000002);
  EXPECT_EQ(h.messages[1].more.find("seed")->integer(), 7);
  EXPECT_EQ(to_json(h), to_json(example()));
}

TEST(History, TimesAreWrittenInUtc) {
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(format_time(1764000000), "2025-11-24T16:00:00Z");
  EXPECT_EQ(format_time(951782400), "2000-02-29T00:00:00Z");
}

TEST(History, RusTorchsFileAndABareArrayAreReadToo) {
  const History r = parse_history(
      R"({"messages": [{"role": "user", "content": "Hi", "timestamp": 1760000000}]})", "r.json");
  EXPECT_EQ(r.messages.at(0).time, 1760000000);
  const History o = parse_history(
      R"([{"role": "system", "content": "S"},
          {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
          {"role": "assistant", "content": null, "tool_calls": []}])",
      "o.json");
  EXPECT_EQ(o.system, "S");
  ASSERT_EQ(o.messages.size(), 2u);
  EXPECT_EQ(o.messages[0].content, "a\nb");
  EXPECT_TRUE(template_message(o.messages[1]).find("tool_calls"));
}

TEST(History, ErrorsNameTheirPlace) {
  EXPECT_EQ(refusal("{\"messages\": [{\"role\": \"user\"}]}"), "history.format /messages/0/content");
  EXPECT_EQ(refusal("[{\"role\": \"robot\", \"content\": \"x\"}]"), "history.format /0/role");
  EXPECT_EQ(refusal("[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]"),
            "history.format /0/content/0/type");
  EXPECT_EQ(refusal("[{\"role\": \"user\", \"content\": \"\", \"timestamp\": -1}]"),
            "history.format /0/timestamp");
  EXPECT_EQ(refusal("[{\"role\": \"user\", \"content\": \"\", \"timestamp\": \"2026-02-30T00:00:00Z\"}]"),
            "history.format /0/timestamp");
  EXPECT_EQ(refusal("{}"), "history.format /messages");
  EXPECT_EQ(refusal("3"), "history.format /");
  EXPECT_EQ(refusal("{\"format\": \"plumb-history\", \"version\": 2, \"messages\": []}"),
            "history.version /version");
  EXPECT_EQ(refusal("{\"format\": \"other\", \"messages\": []}"), "history.format /format");
  EXPECT_EQ(refusal("[").substr(0, 5), "json.");
}

TEST(History, TheRecordsOfAJournalLeadToTheConversation) {
  History start = example();
  start.messages.clear();
  const History full = example();
  const std::vector<ChatMessage> more = {{"user", "And?", 3}, {"assistant", "So.", 4}};
  std::vector<std::string> records = {record_start(start), record_turn(full.messages), record_turn(more)};
  EXPECT_EQ(replay(records, "j").messages.size(), 4u);
  records.push_back(record_turn({}, 2));
  records.push_back(record_system("Be long."));
  const History h = replay(records, "j");
  EXPECT_EQ(h.system, "Be long.");
  ASSERT_EQ(h.messages.size(), 2u);
  EXPECT_EQ(h.messages[1].content, "Hello.");
  records.push_back(record_start(start));
  EXPECT_TRUE(replay(records, "j").messages.empty());
  EXPECT_TRUE(replay({}, "j").messages.empty());
}

TEST(History, ATurnMayHaveAnyMessages) {
  // A system message inside a turn stays where it is.
  const std::vector<ChatMessage> turn = {{"user", "a", 1}, {"system", "s", 2}};
  EXPECT_EQ(replay(std::vector<std::string>{record_turn(turn)}, "j").messages.size(), 2u);
}

TEST(History, DamagedTextGivesAnErrorAndNothingWorse) {
  const std::string good = to_json(example());
  std::mt19937 random(5);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = good.substr(0, random() % 2 ? good.size() : random() % good.size());
    for (size_t n = random() % 4; n > 0 && !text.empty(); --n) {
      char& c = text[random() % text.size()];
      c = char(c ^ (1 << random() % 8));
    }
    try {
      parse_history(text, "h.json");
      ++accepted;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace plumb
