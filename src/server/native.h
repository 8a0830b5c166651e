// Routes that llama.cpp's server has and OpenAI's API lacks, and what a server says about itself.
#pragma once

#include "server/service.h"

namespace plumb::server {

void handle_completion(Call& call);
void handle_tokenize(Call& call);
void handle_detokenize(Call& call);
void handle_apply_template(Call& call);

void handle_health(Call& call);
void handle_models(Call& call);
void handle_props(Call& call);
void handle_slots(Call& call);
void handle_metrics(Call& call);

/// A file of the page; "/" is index.html. Throws Error "request.path".
HttpResponse page_file(const std::string& path);

}  // namespace plumb::server
