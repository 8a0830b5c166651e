// Tools for templates of ChatML's kind that know nothing of them: told in words, as SmolLM2 was taught.
#pragma once

#include <string_view>

#include "base/json.h"

namespace plumb {

/// Whether the template writes ChatML and has no place for tools.
bool needs_tools_in_words(std::string_view chat_template);

/// The messages with the tools described in the system message, and with calls and their results as texts.
/// Source: the instructions for function calls of HuggingFaceTB/SmolLM2-1.7B-Instruct.
Json tools_in_words(const Json& messages, const Json& tools);

}  // namespace plumb
