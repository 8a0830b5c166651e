// One line from a terminal: editing, history, search, completion and paste by libedit, of which this is the
// one user. Model text never passes through it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "chat/complete.h"

namespace plumb {

class LineEditor {
 public:
  enum class Result { line, end, interrupted };
  using Complete = std::function<Completions(std::string_view line)>;

  /// `history_file` keeps the last `max_entries` messages, one JSON text a line; empty: nowhere.
  LineEditor(Complete complete, std::string history_file, int max_entries);
  ~LineEditor();

  /// Pasted line ends become part of the line. Ctrl-C clears it (interrupted), Ctrl-D ends it: an empty one,
  /// or with `multiline` any.
  Result read(const std::string& prompt, bool multiline, std::string& line);

  /// Whether a key has come since the last prompt.
  bool typed() const;

  /// For the arrow keys, now and in later runs.
  void remember(const std::string& message);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb
