#include "chat/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "base/error.h"

namespace plumb {
namespace {

// Where most chat models of these years agree.
constexpr const char* kChatMl =
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor "
    "%}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

struct Digest {  // FNV-1a
  uint64_t value = 0xcbf29ce484222325u;
  void add(std::string_view bytes) {
    for (const char c : bytes) value = (value ^ uint8_t(c)) * 0x100000001b3u;
  }
};

}  // namespace

std::string fingerprint(const Gguf& file) {
  Digest digest;
  for (const GgufValue& v : file.values()) {
    digest.add(v.key);
    digest.add({reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size()});
  }
  for (const GgufTensor& t : file.tensors()) {
    digest.add(fmt::format("{} {} {} {} {} {} {};", t.name, int(t.format), t.ne[0], t.ne[1], t.ne[2], t.ne[3],
                           t.offset));
  }
  return fmt::format("{:016x}", digest.value);
}

std::string template_named(const std::string& text) {
  if (text.empty() || text.find('{') != std::string::npos) return text;
  if (text == "chatml") return kChatMl;
  throw Error({.code = "usage.template",
               .expected = "chatml, or a template's text, which has {{ }} in it",
               .found = printable(text),
               .where = {.key = "--chat-template"},
               .remedy = "a file is given with --chat-template-file"});
}

ChatSession::ChatSession(std::unique_ptr<Model> model, SessionOptions options)
    : model_(std::move(model)),
      options_(std::move(options)),
      prompt_(*model_, options_.template_source),
      runner_(Runner::make(*model_, options_.runner)) {}

void ChatSession::run_on(const RunnerOptions& options) {
  runner_ = Runner::make(*model_, options);
  options_.runner = options;
  cached_.clear();
}

Conversation ChatSession::conversation(const History& history, size_t first) const {
  Json::Array messages;
  if (!history.system.empty()) messages.push_back(template_message({"system", history.system}));
  for (size_t i = first; i < history.messages.size(); ++i)
    messages.push_back(template_message(history.messages[i]));
  Conversation c;
  c.messages = Json(std::move(messages));
  c.variables = options_.variables;
  c.now = std::time(nullptr);
  return c;
}

std::string ChatSession::prompt(const History& history) const {
  return prompt_.text(conversation(history, first_));
}

// When the prompt and room for an answer no longer fit, messages go until half of the context is free: the
// cache is then of no use once, and not at every turn. What is left begins with a message of the user.
std::vector<int> ChatSession::fitting_tokens(const History& history, const GenerateOptions& options) {
  first_ = std::min(first_, history.messages.size() - 1);
  std::vector<int> ids = prompt_.tokens(conversation(history, first_));
  int64_t room = n_ctx() / 4;
  if (options.n_predict >= 0) room = std::min<int64_t>(room, options.n_predict);
  if (int64_t(ids.size()) + room <= n_ctx()) return ids;
  while (int64_t(ids.size()) > n_ctx() / 2) {
    size_t next = first_ + 1;
    while (next < history.messages.size() && history.messages[next].role != "user") ++next;
    if (next >= history.messages.size()) break;
    first_ = next;
    ids = prompt_.tokens(conversation(history, first_));
  }
  if (int64_t(ids.size()) < n_ctx()) return ids;
  throw Error({.code = "chat.too_long",
               .expected = fmt::format("a message of at most {} tokens, the context, with its system prompt",
                                       n_ctx() - 1),
               .found = fmt::format("{} tokens", ids.size()),
               .remedy = fmt::format("raise the context with -c; the model was trained with {}",
                                     model_->program().n_ctx_train)});
}

// How many tokens of the prompt the runner holds and keeps; one at least is left to compute.
int64_t ChatSession::reuse(const std::vector<int>& ids) {
  const auto differs = std::mismatch(cached_.begin(), cached_.end(), ids.begin(), ids.end()).first;
  int64_t same = std::min<int64_t>(differs - cached_.begin(), int64_t(ids.size()) - 1);
  if (same < runner_->length()) {
    if (options_.runner.arith == Arith::fast) {
      runner_->truncate(same);
    } else {  // cannot forget a part
      runner_ = Runner::make(*model_, options_.runner);
      same = 0;
    }
  }
  return same;
}

Reply ChatSession::answer(const History& history, const GenerateOptions& options,
                          const std::function<void(int64_t)>& begin,
                          const std::function<void(std::string_view)>& text) {
  PLUMB_CHECK(!history.messages.empty());
  Reply out;
  const size_t before = first_;
  const std::vector<int> ids = fitting_tokens(history, options);
  out.left_out = first_;
  out.newly_left_out = first_ > before ? first_ - before : 0;
  out.prompt_tokens = int64_t(ids.size());
  out.cached_tokens = reuse(ids);
  cached_ = ids;
  begin(out.prompt_tokens - out.cached_tokens);
  try {
    out.generated = generate(*runner_, model_->tokenizer(), ids, options, [&](std::string_view piece) {
      out.text += piece;
      text(piece);
    });
  } catch (...) {
    cached_.resize(std::min(cached_.size(), size_t(runner_->length())));
    throw;
  }
  cached_.insert(cached_.end(), out.generated.ids.begin(), out.generated.ids.end());
  cached_.resize(size_t(runner_->length()));
  return out;
}

}  // namespace plumb
