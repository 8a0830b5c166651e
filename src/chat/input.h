// Several typed lines become one message: a backslash at the end of a line continues it, """ opens and closes
// a block, and with `multiline` only the end of the input ends it.
#pragma once

#include <string>
#include <string_view>

namespace plumb {

class InputLines {
 public:
  explicit InputLines(bool multiline = false) : multiline_(multiline) {}

  /// Takes the next line; true when the message is complete. The end of the input completes it as well.
  bool push(std::string_view line);

  bool empty() const { return !begun_; }
  /// Inside a block a slash is no command.
  bool literal() const { return literal_; }
  const std::string& text() const { return text_; }

 private:
  void add(std::string_view line);

  std::string text_;
  bool multiline_, begun_ = false, has_line_ = false, block_ = false, literal_ = false;
};

}  // namespace plumb
