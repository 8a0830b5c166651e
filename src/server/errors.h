// What went wrong, as an HTTP status and the bodies that OpenAI's and Anthropic's clients expect.
#pragma once

#include <exception>
#include <string>

#include "base/json.h"
#include "server/http.h"

namespace plumb::server {

enum class ApiStyle { openai, anthropic };

struct ApiFailure {
  int status = 500;
  std::string type = "server_error", message, param;  // OpenAI's type; JSON pointer or ""
  std::string code;                                   // of our Error
  int64_t offset = -1;
};

/// From any exception that a request caused.
ApiFailure describe_failure(std::exception_ptr error);
ApiFailure make_failure(int status, std::string message);

Json error_json(const ApiFailure& failure, ApiStyle style);
HttpResponse error_response(const ApiFailure& failure, ApiStyle style);

}  // namespace plumb::server
