// OpenAI's responses.
#pragma once

#include "server/service.h"

namespace plumb::server {

void handle_responses(Call& call);

}  // namespace plumb::server
