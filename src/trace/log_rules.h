// Logs of hand-written engines as evidence: rules say which printed line is which value (docs/log-rules.md).
// A rule is literal text with captures; there are no regular expressions, and a line costs linear time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace plumb::trace {

inline constexpr int64_t kMaxLogBytes = 64 << 20;
inline constexpr int64_t kMaxRulesBytes = 1 << 20;

/// A part of a rule's left side.
struct LogPart {
  bool capture = false;
  std::string text;  // literal text, or the name of a capture
};

/// What a line that matches means.
struct LogAction {
  enum class Kind { none, parameter, parameters, stats, head, ids, first, range, pairs, top, named };

  std::vector<std::string> sets;  // captures kept for the lines that follow
  Kind kind = Kind::none;
  std::vector<std::string> targets;  // value names with {captures}; several: one of them is meant
  bool weight = false;               // of a weight, not of a value
  std::string row;                   // capture that holds the id whose row of a table this is
  std::string scope;                 // "all", "last" or "-"
};

struct LogRule {
  std::vector<LogPart> parts;
  LogAction action;
};

class LogRules {
 public:
  /// Throws Error "log.rule" with the line.
  static LogRules parse(std::string_view text, const std::string& name);

  /// The log as an evidence file. Every number keeps the text in which it was printed; lines that match no
  /// rule are kept as well. Throws Error "log.empty" when no line matches.
  Json import(std::string_view log, const std::string& name) const;

 private:
  std::vector<LogRule> rules_;
};

/// A capture's text split: "rms=0.01, min=-2" into keys and numbers; "[1, 2, ...]" into numbers.
std::vector<std::pair<std::string, std::string>> split_pairs(std::string_view text);
std::vector<std::string> split_list(std::string_view text);

/// Without white space at the ends.
std::string_view trimmed(std::string_view text);

/// The longest printed number that the text begins with: "4 (GQA)" has "4".
std::string_view leading_number(std::string_view text);

}  // namespace plumb::trace
