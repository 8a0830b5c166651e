#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "engine/answer.h"

namespace plumb {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

const char* name(Stop stop) {
  switch (stop) {
    case Stop::end_of_text:
      return "end of text";
    case Stop::limit:
      return "token limit";
    case Stop::stop_string:
      return "stop string";
    case Stop::context_full:
      return "context full";
    case Stop::cancelled:
      break;
  }
  return "interrupted";
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  // The stop string that ends first counts, as if the text came byte by byte: pieces must not change what is
  // shown.
  size_t first = std::string::npos, end = std::string::npos, keep = 0;
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    if (const size_t at = held_.find(stop); at != std::string::npos && at + stop.size() <= end) {
      if (at + stop.size() < end || at < first) first = at, matched_ = stop;
      end = at + stop.size();
    }
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) keep = n;
    }
  }
  if (first != std::string::npos) {
    stopped_ = true;
    std::string out = held_.substr(0, first);
    held_.clear();
    return out;
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

Generated generate(Runner& runner, const Tokenizer& tokenizer, const std::vector<int>& ids,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& text) {
  Generated out;
  Answer answer(tokenizer, options, ids, runner.n_ctx());
  const auto show = [&](const std::string& visible) {
    if (!visible.empty()) text(visible);
  };
  std::span<const float> logits;
  const auto decode =
      [&](std::span<const int> tokens) {  // false when interrupted, also between the pieces of a prompt
        try {
          logits = runner.decode(tokens);
          return true;
        } catch (const Error& e) {
          if (e.code() != "run.cancelled") throw;
          out.stop = Stop::cancelled;
          return false;
        }
      };
  auto start = std::chrono::steady_clock::now();
  if (!decode(std::span(ids).subspan(size_t(runner.length())))) return out;
  out.prompt_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  while (options.n_predict != 0) {
    const Answer::Step step = answer.push(logits);
    show(step.text);
    if (step.stop || runner.length() == runner.n_ctx()) {
      out.stop = step.stop.value_or(Stop::context_full);
      break;
    }
    if (!decode(std::span(&step.id, 1))) break;
  }
  out.seconds = seconds_since(start);
  show(answer.finish());
  out.ids.assign(answer.ids().begin() + int64_t(ids.size()), answer.ids().end());
  return out;
}

}  // namespace plumb
