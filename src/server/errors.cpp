#include "server/errors.h"

#include <new>

#include "base/error.h"

namespace plumb::server {
namespace {

const char* openai_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 501:
      return "not_supported_error";
    case 503:
      return "unavailable_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

const char* anthropic_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

// Whose fault an Error is shows in the first word of its code.
int status_of(const std::string& code) {
  if (code == "queue.full" || code == "queue.timeout") return 429;
  if (code == "request.model" || code == "request.path") return 404;
  if (code == "server.not_supported") return 501;
  if (code == "server.ending" || code.starts_with("memory.") || code.starts_with("cuda.")) return 503;
  for (const char* client : {"request.", "json.", "chat.", "template.", "context.", "token.", "sampler.",
                             "setting.", "tokenizer.id", "grammar.", "schema.", "tools."}) {
    if (code.starts_with(client)) return 400;
  }
  return 500;
}

}  // namespace

ApiFailure make_failure(int status, std::string message) {
  return {
      .status = status, .type = openai_type(status), .message = std::move(message), .param = {}, .code = {}};
}

ApiFailure describe_failure(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    ApiFailure f = make_failure(status_of(e.code()), e.what());
    if (e.code() == "context.full") f.type = "exceed_context_size_error";
    f.param = e.where().key, f.code = e.code(), f.offset = e.where().offset;
    return f;
  } catch (const HttpError& e) {
    return make_failure(e.status, e.message);
  } catch (const std::bad_alloc&) {
    return make_failure(503, "out of memory");
  } catch (const std::exception& e) {
    return make_failure(500, e.what());
  }
}

Json error_json(const ApiFailure& f, ApiStyle style) {
  Json error, out;
  if (style == ApiStyle::anthropic) {
    error.set("type", anthropic_type(f.status)), error.set("message", f.message);
    out.set("type", "error"), out.set("error", std::move(error));
    return out;
  }
  error.set("code", f.status), error.set("type", f.type), error.set("message", f.message);
  error.set("param", f.param.empty() ? Json() : Json(f.param));
  if (!f.code.empty()) {
    Json own;
    own.set("code", f.code);
    if (f.offset >= 0) own.set("offset", f.offset);
    error.set("plumb", std::move(own));
  }
  out.set("error", std::move(error));
  return out;
}

HttpResponse error_response(const ApiFailure& f, ApiStyle style) {
  HttpResponse r{f.status, dump(error_json(f, style))};
  if (f.status == 429) r.headers.push_back({"Retry-After", "1"});
  if (f.status == 401) r.headers.push_back({"WWW-Authenticate", "Bearer"});
  return r;
}

}  // namespace plumb::server
