// What a chat does with a message: answer it, show and record the answer, say what it cost.
#include <fmt/format.h>

#include <ctime>

#include "app/chat_repl.h"
#include "base/error.h"

namespace plumb {
namespace {

double rate(size_t count, double seconds) { return seconds > 0 ? double(count) / seconds : 0; }

}  // namespace

void ChatRepl::send(const std::string& text) {
  again_ = 0;
  history_.messages.push_back({"user", read_before_ + text, std::time(nullptr)});
  try {
    answer(0);
  } catch (...) {
    history_.messages.pop_back();
    throw;
  }
  read_before_.clear();
}

// Answers the last message; the answer that is replaced has left history_ already, but not the journal.
void ChatRepl::answer(size_t replaced) {
  using Clock = std::chrono::steady_clock;
  GenerateOptions options = o_.generate;
  options.sampler = o_.sampler.sampler();
  if (o_.sampler.seed >= 0) options.sampler.seed += uint64_t(again_);
  interrupt_flag() = false;
  bool begun = false;
  const auto begin = [&](int64_t tokens) {
    screen_.bar().explain([tokens, start = Clock::now()](double share) {
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      const auto done = int64_t(share * double(tokens));
      return fmt::format("{}/{} tokens, {:.0f}/s", done, tokens, rate(size_t(done), seconds));
    });
  };
  const auto text = [&](std::string_view piece) {
    if (!std::exchange(begun, true)) screen_.begin_answer();
    screen_.answer(piece);
  };
  Reply reply;
  try {
    reply = session_->answer(history_, options, begin, text);
  } catch (...) {
    screen_.bar().erase();
    if (begun) screen_.end_answer();
    interrupt_flag() = false;
    throw;
  }
  interrupt_flag() = false;
  screen_.bar().erase();
  const bool nothing = reply.generated.stop == Stop::cancelled && reply.text.empty();
  if (!begun && !nothing) screen_.begin_answer();
  if (!nothing) screen_.end_answer();
  tell(reply);
  if (nothing) {
    throw Error({.code = "chat.stopped",
                 .expected = "an answer",
                 .found = "an interrupt before it began",
                 .remedy = "the message is not part of the conversation"});
  }
  history_.messages.push_back(recorded(reply, options));
  last_ = std::move(reply);
  last_options_ = options;
  show_timings();
  const size_t added = replaced > 0 ? 1 : 2;
  try {
    log_->turn(std::span(history_.messages).last(added), replaced);
  } catch (const Error& e) {
    screen_.error(e);
    screen_.note("the conversation goes on, but is not on the disk; /save FILE writes it elsewhere");
  }
}

ChatMessage ChatRepl::recorded(const Reply& reply, const GenerateOptions& used) const {
  const Generated& g = reply.generated;
  const auto count = int64_t(g.ids.size());
  Json details, usage, timings, more;
  details.set("cached_tokens", reply.cached_tokens);
  usage.set("prompt_tokens", reply.prompt_tokens);
  usage.set("completion_tokens", count);
  usage.set("total_tokens", reply.prompt_tokens + count);
  usage.set("prompt_tokens_details", details);
  timings.set("cache_n", reply.cached_tokens);
  timings.set("prompt_n", reply.prompt_tokens - reply.cached_tokens);
  timings.set("prompt_ms", g.prompt_seconds * 1e3);
  timings.set("predicted_n", count);
  timings.set("predicted_ms", g.seconds * 1e3);
  more.set("seed", used.sampler.seed);
  more.set("finish_reason", name(g.stop));
  more.set("usage", usage);
  more.set("timings", timings);
  return {"assistant", reply.text, std::time(nullptr), more};
}

// What the figures do not say.
void ChatRepl::tell(const Reply& reply) {
  if (reply.newly_left_out > 0) {
    screen_.note(
        fmt::format("The context of {} tokens is full: the model no longer sees the first {} of {} messages.",
                    session_->n_ctx(), reply.left_out, history_.messages.size()));
  }
  if (reply.generated.stop == Stop::context_full) {
    screen_.note(
        fmt::format("The answer was cut: the context of {} tokens is full; -c raises it (trained with {}).",
                    session_->n_ctx(), session_->model().program().n_ctx_train));
  } else if (reply.generated.stop == Stop::limit) {
    screen_.note(fmt::format("The answer was cut after {} tokens (max_tokens).", reply.generated.ids.size()));
  } else if (reply.generated.stop == Stop::cancelled && !reply.text.empty()) {
    screen_.note("Stopped; what was written stays.");
  }
}

void ChatRepl::show_timings() {
  if (!screen_.timings() || !last_) return;
  const Reply& r = *last_;
  const Generated& g = r.generated;
  const auto computed = size_t(r.prompt_tokens - r.cached_tokens);
  const std::string context = fmt::format("context {}/{}", session_->context_used(), session_->n_ctx());
  const std::string reply = fmt::format("{} tokens, {:.1f}/s", g.ids.size(), rate(g.ids.size(), g.seconds));
  const std::string whole =
      fmt::format("[{}; prompt {} + {} cached, {:.1f}/s; first after {:.2f} s; {}; seed {}]", reply, computed,
                  r.cached_tokens, rate(computed, g.prompt_seconds), g.prompt_seconds, context,
                  last_options_.sampler.seed);
  screen_.dim_note(int(whole.size()) < screen_.columns() ? whole : fmt::format("[{}; {}]", reply, context));
}

}  // namespace plumb
