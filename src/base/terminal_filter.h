// What models, files and clients say, made safe to show: no escape sequence, control character or reordering
// mark reaches a terminal or a log (design, hardening, section 7). One state machine for text that comes in
// pieces.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace plumb {

class TerminalFilter {
 public:
  /// What may be shown of the text so far. Newline and tab stay, a carriage return before a newline goes; ESC
  /// becomes \e, other control characters (C0, DEL, C1) and U+202A-E, U+2066-9 become \x07 or \u{202e}; bytes
  /// that are no UTF-8 become U+FFFD. The pieces may cut characters and sequences anywhere: the result is the
  /// same.
  std::string push(std::string_view piece);

  /// What was held back: the beginning of a character, as U+FFFD; a carriage return.
  std::string finish();

 private:
  void show(std::string& out, uint32_t code);

  std::string held_;  // the bytes of an unfinished character
  bool carriage_return_ = false;
};

/// All of a text at once.
std::string terminal_text(std::string_view text);

}  // namespace plumb
