// OpenAI's responses: the route, and what it is asked.
#pragma once

#include "server/formats.h"
#include "server/service.h"

namespace plumb::server {

void handle_responses(Call& call);

/// input and instructions as messages of chat completions.
Json read_input(Fields& fields);

/// tools, tool_choice and parallel_tool_calls, as they were given and as chat completions have them.
struct ResponseTools {
  Json given = Json::Array{};
  Json choice = "auto";
  bool parallel = true;
  ToolFields fields = {};
};
ResponseTools read_response_tools(Fields& fields);

/// text.format: text, json_object or json_schema. True where the answer is bound to a form.
bool read_text_format(Fields& fields, Formats& formats, GenerateOptions& options);

}  // namespace plumb::server
