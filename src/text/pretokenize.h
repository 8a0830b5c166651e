// Cuts a text into words by a PreTokenizer's patterns. PCRE2's JIT runs them over a shadow of the text that
// has one byte per character: ASCII as it is, any other character as its Unicode class or the lists that hold
// it. So categories follow one edition of Unicode (15.1, that of llama.cpp's tables) whatever PCRE2 was built
// with, patterns are plain byte classes, and time is linear in the text.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/pretokenizers.h"

namespace plumb {

class Cutter {
 public:
  /// Compiles the rules; throws Error "tokenizer.pattern" when PCRE2 refuses one of our constants.
  explicit Cutter(const PreTokenizer& rules);
  ~Cutter();

  /// Gives out the words of `text` in order; their concatenation is `text`, which must come from
  /// lenient_utf8.
  void cut(std::string_view text, const std::function<void(std::string_view)>& word) const;

 private:
  struct Step;
  struct Piece;
  struct Run;
  void apply(size_t step, const Piece& piece, Run& run) const;
  void match(size_t step, const Piece& piece, Run& run) const;
  void group_digits(size_t step, const Piece& piece, Run& run) const;

  std::vector<Step> steps_;
  std::vector<uint8_t> list_classes_;  // of code points; empty when no step looks at lists
};

/// The class of a character as one byte: itself below 0x80, 0x9E for other white space, else 0x80 + its
/// category.
uint8_t character_class(uint32_t code);

/// A pattern with \p{..}, \s and \S written out as classes of those bytes; \p{..} names a list when `lists`.
std::string expand_classes(std::string_view pattern, bool lists = false);

/// True when utf8_step_lenient reads the text without changing a byte.
bool is_lenient_utf8(std::string_view text);

/// The text as llama.cpp's BPE sees it: every character that utf8_step_lenient reads, encoded anew.
std::string lenient_utf8(std::string_view text);

}  // namespace plumb
