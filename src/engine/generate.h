// The loop that writes text: decode, choose, detokenise, stop.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/runner.h"
#include "engine/sampler.h"
#include "text/grammar.h"

namespace plumb {

enum class Stop { end_of_text, limit, stop_string, context_full, cancelled };

const char* name(Stop stop);

/// Thoughts between two marks, each one token, that are ended after so many tokens.
struct ThoughtLimit {
  int most = 0;
  int open = -1, close = -1;
  bool inside = false;  // the prompt ends inside one
};

struct GenerateOptions {
  int n_predict = -1;                   // -1: until something else stops
  std::vector<std::string> stops = {};  // text that ends the answer and is not part of it
  bool ignore_eos = false;
  bool special = false;  // show control tokens
  SamplerOptions sampler = {};
  std::optional<GrammarState> grammar = {};  // what the text must follow; its end is the text's
  std::optional<ThoughtLimit> thought = {};
};

struct Generated {
  std::vector<int> ids;
  Stop stop = Stop::limit;
  double prompt_seconds = 0, seconds = 0;  // to the first token; after it
};

/// Feeds the prompt, of which the runner may hold a beginning already but not all, and generates; `text`
/// receives whole characters as soon as no stop string can begin in them.
Generated generate(Runner& runner, const Tokenizer& tokenizer, const std::vector<int>& prompt,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& text);

/// Holds back text that may be the beginning of a stop string.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// Text that may be shown; sets stopped() when a stop string is complete, and then drops it and what
  /// follows.
  std::string push(std::string_view text);
  /// What was held back in vain.
  std::string finish() { return std::exchange(held_, {}); }
  bool stopped() const { return stopped_; }
  const std::string& matched() const { return matched_; }  // the stop string, once stopped

 private:
  std::vector<std::string> stops_;
  std::string held_, matched_;
  bool stopped_ = false;
};

}  // namespace plumb
