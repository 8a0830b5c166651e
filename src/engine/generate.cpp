#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"

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
      first = at + stop.size() < end ? at : std::min(first, at);
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

Generated generate(Runner& runner, const Tokenizer& tokenizer, std::vector<int> ids,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& text) {
  PLUMB_CHECK(!ids.empty());
  Generated out;
  const Sampler sampler(options.sampler, 0);
  Detokenizer detokenizer(tokenizer, options.special);
  StopFilter filter(options.stops);
  const auto cancelled = [&] { return options.cancel && options.cancel->load(); };
  const auto show = [&](std::string_view piece) {
    const std::string visible = filter.push(piece);
    if (!visible.empty()) text(visible);
  };
  auto start = std::chrono::steady_clock::now();
  std::span<const float> logits;
  try {
    logits = runner.decode(ids);
  } catch (const Error& e) {
    if (e.code() != "run.cancelled") throw;
    out.stop = Stop::cancelled;
    return out;
  }
  out.prompt_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  while (true) {
    if (options.n_predict >= 0 && int64_t(out.ids.size()) >= options.n_predict) {
      out.stop = Stop::limit;
      break;
    }
    if (cancelled()) {
      out.stop = Stop::cancelled;
      break;
    }
    const int id = sampler.choose(logits, ids, ids.size());
    if (tokenizer.is_end_of_generation(id) && !options.ignore_eos) {
      out.stop = Stop::end_of_text;
      break;
    }
    ids.push_back(id);
    out.ids.push_back(id);
    show(detokenizer.push(id));
    if (filter.stopped()) {
      out.stop = Stop::stop_string;
      break;
    }
    if (runner.length() == runner.n_ctx()) {
      out.stop = Stop::context_full;
      break;
    }
    if (options.n_predict < 0 || int64_t(out.ids.size()) < options.n_predict)
      logits = runner.decode(std::span(&id, 1));
  }
  out.seconds = seconds_since(start);
  show(detokenizer.finish());
  if (const std::string rest = filter.finish(); !rest.empty()) text(rest);
  return out;
}

}  // namespace plumb
