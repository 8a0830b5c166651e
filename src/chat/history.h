// A conversation as data: what /save writes, /load reads, and the journal records turn by turn.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace plumb {

struct ChatMessage {
  std::string role;  // user, assistant, tool, system, developer
  std::string content;
  int64_t time = -1;  // seconds since 1970; -1: not known
  Json more = {};     // an object of the other members (seed, usage, timings, tool_calls, ...), or null
};

struct History {
  int64_t created = -1;
  std::string model, fingerprint;  // empty: not known
  std::string system;
  Json sampling = {};  // as it was when saved; an object, or null
  std::vector<ChatMessage> messages;
};

/// {"role", "content"} and what a template may ask for besides: what a model is given of a message.
Json template_message(const ChatMessage& message);

/// {"format": "plumb-history", "version": 1, ...} as indented JSON.
std::string to_json(const History& history);

/// Reads plumb-history, RusTorch's {"messages": [{role, content, timestamp}]}, or a bare array of OpenAI
/// messages. A leading system or developer message becomes `system`. Throws Error "json.*", "history.format"
/// with the JSON pointer, "history.version" for a newer version.
History parse_history(std::string_view text, const std::string& name);

// Records of a journal (base/journal.h), each one JSON object.
std::string record_start(const History& history);  // begins anew, with all messages there are
/// The last `drop` messages go and these come.
std::string record_turn(std::span<const ChatMessage> messages, size_t drop = 0);
std::string record_system(std::string_view text);

/// The conversation that the records left. Throws Error "history.format" with the number of the record.
History replay(std::span<const std::string> records, const std::string& name);

/// A file of any kind that /load takes: a journal is told by its first bytes.
History load_history(const std::string& path);

/// "2026-11-24T01:40:12Z"
std::string format_time(int64_t seconds);

}  // namespace plumb
