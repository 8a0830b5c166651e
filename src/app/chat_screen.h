// What a chat shows: prompts and answers on standard output, everything else on standard error; colour and
// prompts only for a person at a terminal.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "app/progress.h"
#include "base/error.h"
#include "base/terminal_filter.h"

namespace plumb {

struct ChatOptions;

class ChatScreen {
 public:
  explicit ChatScreen(const ChatOptions& options);

  /// A person types here and reads here.
  bool interactive() const { return interactive_; }
  bool timings() const;
  int columns() const;

  /// The prompt of a message, for the line editor; of its further lines.
  std::string user_prompt(bool first) const;

  void begin_answer();
  void answer(std::string_view text);
  void end_answer();

  /// One line, or several, on standard error; foreign text must have been filtered.
  void note(std::string_view text);
  void dim_note(std::string_view text);
  void error(const Error& e);

  ProgressBar& bar() { return bar_; }
  Progress progress();

 private:
  const ChatOptions& o_;
  bool interactive_, color_out_, color_error_, error_terminal_;
  ProgressBar bar_;
  std::optional<TerminalFilter> filter_;
  char last_ = '\n';
};

}  // namespace plumb
