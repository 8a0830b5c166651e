// Which rules cut a text into words before byte-level BPE, by the names that tokenizer.ggml.pre may hold.
#pragma once

#include <span>
#include <string_view>

namespace plumb {

/// A step of the cutting. Every piece of the step before is searched; what matches becomes a piece, and so
/// does what lies between matches.
struct PreTokenizerStep {
  // Patterns over one byte per character. classes: its class (pretokenize.h), \p{..} a category. lists: which
  // lists hold it, \p{..} a list (character_lists.h). digits_by_three: runs of digits in groups of three from
  // the right.
  enum class Kind { classes, lists, digits_by_three } kind;
  const char* parts[9] = {};  // the pattern, in pieces
  // Characters that are a match by themselves wherever a search begins with one; saves a search for each.
  enum class Alone { nothing, digits, line_ends } alone = Alone::nothing;
};

struct PreTokenizer {
  std::string_view name;
  std::span<const PreTokenizerStep> steps;
  bool ignore_merges = false;  // a word that is a token is that token, whatever the merges say
  bool add_bos = false;        // unless tokenizer.ggml.add_bos_token says otherwise
  bool no_bos = false;         // the vocabulary has no BOS unless the file names one
  bool raw_text = false;       // gemma4: merges act on UTF-8 with U+2581 for spaces, not on the byte alphabet
};

/// nullptr when the name is not known.
const PreTokenizer* find_pre_tokenizer(std::string_view name);

/// All names, for messages.
std::span<const PreTokenizer> all_pre_tokenizers();

}  // namespace plumb
