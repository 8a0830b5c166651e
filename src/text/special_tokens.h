// Tokens that mean something by their text: which end a generation, which are control tokens though the file
// calls them normal, which swallow the white space around them. The lists are llama.cpp's
// (src/llama-vocab.cpp).
#pragma once

#include <string_view>

#include "text/vocabulary.h"

namespace plumb {

/// Ids that the file names itself, -1 where it does not.
struct SpecialIds {
  int eot = -1, eom = -1;
  int fim_prefix = -1, fim_suffix = -1, fim_middle = -1, fim_padding = -1, fim_repository = -1,
      fim_separator = -1;
};

/// Sets v.end_of_generation and corrects v.attributes.
void mark_special_tokens(Vocabulary& v, SpecialIds ids);

/// Sets kStripLeft and kStripRight for the models that are known to need them.
void mark_stripping_tokens(Vocabulary& v, std::string_view name, std::string_view architecture);

}  // namespace plumb
