// A request for text completions, taken apart: for the route and for receipts of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/openai.h"

namespace plumb::server {

struct TextRun {
  StreamFields stream = {};
  OwnFields own = {};
  int n = 1, top = -1;  // answers to each prompt; log probabilities
  bool echo = false;
  std::vector<std::string> echoed = {};        // text of each prompt
  std::vector<std::vector<int>> prompts = {};  // their ids
  AnswerRequest request = {};                  // of each answer, but for its prompt

  /// n for each prompt.
  std::vector<AnswerRequest> requests() const;
};

/// Reads all fields of the body of /v1/completions, which lies at `pointer` of what the client sent.
TextRun read_text_run(const Json& body, const Service& service, const std::string& pointer = "");

/// What answers to `run` look like.
std::unique_ptr<Style> text_style(const Service& service, TextRun run);

}  // namespace plumb::server
