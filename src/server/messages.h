// Anthropic's messages.
#pragma once

#include "server/service.h"

namespace plumb::server {

void handle_messages(Call& call);
void handle_count_tokens(Call& call);

}  // namespace plumb::server
