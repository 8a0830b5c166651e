// Anthropic's messages.
#pragma once

#include "server/formats.h"
#include "server/service.h"

namespace plumb::server {

/// What a request says in Anthropic's words, in ours.
struct AnthropicAsked {
  Conversation conversation = {};
  ToolFields tools = {};
  int thought_tokens = -1;  // at most; -1: no limit
};

/// Reads system, messages, tools, tool_choice and thinking.
AnthropicAsked read_anthropic(Fields& fields, const Service& service);

void handle_messages(Call& call);
void handle_count_tokens(Call& call);

}  // namespace plumb::server
