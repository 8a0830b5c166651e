#include "chat/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/journal.h"
#include "base/limits.h"

namespace plumb {
namespace {

constexpr int64_t kVersion = 1;
constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};
constexpr int64_t kMaxTime = 253'402'300'799;  // the last second of the year 9999

// Where in which file something stands.
struct Place {
  std::string file, pointer;

  Place operator/(std::string_view part) const { return {file, fmt::format("{}/{}", pointer, part)}; }

  [[noreturn]] void refuse(std::string expected, std::string found) const {
    throw Error({.code = "history.format",
                 .expected = std::move(expected),
                 .found = std::move(found),
                 .where = {.file = file, .key = pointer.empty() ? "/" : pointer}});
  }
};

const std::string& text_at(const Json& object, std::string_view key, const Place& place) {
  const Json* member = object.find(key);
  if (!member || !member->text()) (place / key).refuse("a text", member ? "another value" : "none");
  return *member->text();
}

std::string optional_text(const Json& object, std::string_view key, const Place& place) {
  const Json* member = object.find(key);
  return member && !member->is_null() ? text_at(object, key, place) : std::string();
}

// Digits of the text at `at`, or -1.
int digits(std::string_view text, size_t at, size_t count) {
  int v = -1;
  const char* end = text.data() + at + count;
  const auto [rest, error] = std::from_chars(text.data() + at, end, v);
  return error == std::errc() && rest == end && text[at] != '-' ? v : -1;
}

int64_t parse_time(const Json& value, const Place& place) {
  if (const auto number = value.number()) {
    if (!(*number >= 0 && *number <= double(kMaxTime)))
      place.refuse("seconds since 1970", "a number outside them");
    return int64_t(std::floor(*number));
  }
  const std::string* text = value.text();
  if (!text || text->size() < 20 || (*text)[10] != 'T' || text->back() != 'Z')
    place.refuse("seconds since 1970 or a time such as 2026-11-24T01:40:12Z",
                 text ? printable(*text, 40) : "another value");
  const int y = digits(*text, 0, 4), mo = digits(*text, 5, 2), d = digits(*text, 8, 2),
            h = digits(*text, 11, 2), mi = digits(*text, 14, 2), s = digits(*text, 17, 2);
  using namespace std::chrono;
  const year_month_day date{year{y}, month{unsigned(mo)}, day{unsigned(d)}};
  if (y < 1970 || !date.ok() || h < 0 || h > 23 || mi < 0 || mi > 59 || s < 0 || s > 60)
    place.refuse("a time such as 2026-11-24T01:40:12Z", printable(*text, 40));
  return int64_t(sys_days(date).time_since_epoch().count()) * 86400 + h * 3600 + mi * 60 + s;
}

// A text, or parts of {"type": "text"}; nothing at all only beside tool calls.
std::string parse_content(const Json& message, const Place& place) {
  const Json* content = message.find("content");
  if (!content || content->is_null()) {
    if (message.find("tool_calls")) return {};
    place.refuse("a text or an array of parts", "none");
  }
  if (const std::string* text = content->text()) return *text;
  if (!content->array()) place.refuse("a text or an array of parts", "another value");
  std::string out;
  for (size_t i = 0; i < content->array()->size(); ++i) {
    const Json& part = (*content->array())[i];
    const Place at = place / std::to_string(i);
    if (text_at(part, "type", at) != "text")
      (at / "type").refuse("text, the one kind of part that is read", printable(text_at(part, "type", at)));
    if (i > 0) out += '\n';
    out += text_at(part, "text", at);
  }
  return out;
}

ChatMessage parse_message(const Json& value, const Place& place) {
  if (!value.object()) place.refuse("an object with role and content", "another value");
  ChatMessage m;
  m.role = text_at(value, "role", place);
  if (std::find(kRoles.begin(), kRoles.end(), m.role) == kRoles.end())
    (place / "role").refuse("system, developer, user, assistant or tool", printable(m.role, 40));
  m.content = parse_content(value, place / "content");
  for (const auto& [key, member] : *value.object()) {
    if (key == "timestamp") {
      if (!member.is_null()) m.time = parse_time(member, place / key);
    } else if (key != "role" && key != "content") {
      m.more.set(key, member);
    }
  }
  return m;
}

void parse_messages(const Json& value, const Place& place, History& out) {
  const Json::Array* all = value.array();
  if (!all) place.refuse("an array of messages", "another value");
  if (int64_t(all->size()) > kMaxHistoryMessages)
    place.refuse(fmt::format("at most {} messages", kMaxHistoryMessages), std::to_string(all->size()));
  for (size_t i = 0; i < all->size(); ++i) {
    ChatMessage m = parse_message((*all)[i], place / std::to_string(i));
    const bool leads =
        out.messages.empty() && out.system.empty() && (m.role == "system" || m.role == "developer");
    if (leads) {
      out.system = std::move(m.content);
    } else {
      out.messages.push_back(std::move(m));
    }
  }
}

// The members that a saved file and the first record of a journal share.
void parse_head(const Json& value, const Place& place, History& out) {
  if (const Json* created = value.find("created"); created && !created->is_null())
    out.created = parse_time(*created, place / "created");
  if (const Json* model = value.find("model"); model && !model->is_null()) {
    out.model = optional_text(*model, "name", place / "model");
    out.fingerprint = optional_text(*model, "fingerprint", place / "model");
  }
  out.system = optional_text(value, "system", place);
  if (const Json* sampling = value.find("sampling"); sampling && sampling->object()) out.sampling = *sampling;
}

void check_version(const Json& value, const Place& place) {
  const Json* version = value.find("version");
  const auto number = version ? version->integer() : std::nullopt;
  if (!number || *number < 1) (place / "version").refuse("a version from 1 on", "none");
  if (*number > kVersion) {
    throw Error({.code = "history.version",
                 .expected = fmt::format("plumb-history of version {} at most", kVersion),
                 .found = fmt::format("version {}", *number),
                 .where = {.file = place.file, .key = "/version"},
                 .remedy = "a newer plumb reads it"});
  }
}

Json message_json(const ChatMessage& m) {
  Json out;
  out.set("role", m.role);
  out.set("content", m.content);
  if (m.time >= 0) out.set("timestamp", format_time(m.time));
  if (m.more.object()) {
    for (const auto& [key, member] : *m.more.object()) out.set(key, member);
  }
  return out;
}

Json messages_json(std::span<const ChatMessage> messages) {
  Json::Array out;
  for (const ChatMessage& m : messages) out.push_back(message_json(m));
  return Json(std::move(out));
}

Json history_json(const History& h) {
  Json out, model;
  out.set("format", "plumb-history");
  out.set("version", kVersion);
  if (h.created >= 0) out.set("created", format_time(h.created));
  model.set("name", h.model);
  model.set("fingerprint", h.fingerprint);
  out.set("model", model);
  out.set("system", h.system);
  if (h.sampling.object()) out.set("sampling", h.sampling);
  out.set("messages", messages_json(h.messages));
  return out;
}

}  // namespace

Json template_message(const ChatMessage& m) {
  Json out;
  out.set("role", m.role);
  out.set("content", m.content);
  for (const char* key : {"name", "reasoning_content", "tool_calls", "tool_call_id"}) {
    if (const Json* member = m.more.find(key); member && !member->is_null()) out.set(key, *member);
  }
  return out;
}

std::string to_json(const History& history) { return dump(history_json(history), {.indent = 2}) + "\n"; }

History parse_history(std::string_view text, const std::string& name) {
  const Json value = parse_json(text, name);
  const Place place{name, ""};
  History out;
  if (value.array()) {
    parse_messages(value, place, out);
    return out;
  }
  if (!value.object()) place.refuse("a conversation: an object or an array of messages", "another value");
  if (value.find("format")) {
    if (text_at(value, "format", place) != "plumb-history")
      (place / "format").refuse("plumb-history", printable(text_at(value, "format", place), 40));
    check_version(value, place);
    parse_head(value, place, out);
  }
  const Json* messages = value.find("messages");
  if (!messages) (place / "messages").refuse("an array of messages", "none");
  parse_messages(*messages, place / "messages", out);
  return out;
}

std::string record_start(const History& history) {
  Json out = history_json(history);
  out.set("type", "start");
  return dump(out);
}

std::string record_turn(std::span<const ChatMessage> messages, size_t drop) {
  Json out;
  out.set("type", "turn");
  if (drop > 0) out.set("drop", uint64_t(drop));
  out.set("messages", messages_json(messages));
  return dump(out);
}

std::string record_system(std::string_view text) {
  Json out;
  out.set("type", "system");
  out.set("text", text);
  return dump(out);
}

History replay(std::span<const std::string> records, const std::string& name) {
  History out;
  for (size_t i = 0; i < records.size(); ++i) {
    const Place place{name, fmt::format("record {}", i + 1)};
    const Json value = parse_json(records[i], fmt::format("{}, record {}", name, i + 1));
    const std::string& type = text_at(value, "type", place);
    const Json* messages = value.find("messages");
    if (type == "start") {
      check_version(value, place);
      out = {};
      parse_head(value, place, out);
    }
    if (const Json* drop = value.find("drop")) {
      const auto n = drop->integer();
      if (!n || *n < 0 || *n > int64_t(out.messages.size()))
        (place / "drop").refuse("how many of the last messages go", "another value");
      out.messages.resize(out.messages.size() - size_t(*n));
    }
    if (type == "start" || type == "turn") {
      if (!messages) (place / "messages").refuse("an array of messages", "none");
      parse_messages(*messages, place / "messages", out);
    } else if (type == "system") {
      out.system = text_at(value, "text", place);
    } else {
      (place / "type").refuse("start, turn or system", printable(type, 40));
    }
  }
  return out;
}

History load_history(const std::string& path) {
  const std::string text = read_file(path, kMaxJournalBytes);
  if (!text.starts_with(kJournalMagic)) return parse_history(text, path);
  return replay(parse_journal(text, path).records, path);
}

std::string format_time(int64_t seconds) {
  using namespace std::chrono;
  const sys_days days = floor<std::chrono::days>(sys_seconds(std::chrono::seconds(seconds)));
  const year_month_day date(days);
  const hh_mm_ss time(sys_seconds(std::chrono::seconds(seconds)) - days);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", int(date.year()), unsigned(date.month()),
                     unsigned(date.day()), time.hours().count(), time.minutes().count(),
                     time.seconds().count());
}

}  // namespace plumb
