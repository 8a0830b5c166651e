#include "server/server.h"

#include <algorithm>

#include "base/error.h"
#include "server/aside.h"
#include "server/embeddings.h"
#include "server/instrument.h"
#include "server/messages.h"
#include "server/native.h"
#include "server/openai.h"
#include "server/receipt.h"
#include "server/responses.h"
#include "server/web_files.h"

namespace plumb::server {
namespace {

struct Route {
  const char* method;
  const char* path;
  void (*handle)(Call&);
  bool open = false;  // needs no key
  ApiStyle style = ApiStyle::openai;
};

constexpr Route kRoutes[] = {
    {"GET", "/health", handle_health, true},
    {"GET", "/v1/health", handle_health, true},
    {"GET", "/v1/models", handle_models},
    {"GET", "/models", handle_models},
    {"GET", "/props", handle_props},
    {"GET", "/slots", handle_slots},
    {"GET", "/metrics", handle_metrics},
    {"POST", "/v1/chat/completions", handle_chat_completions},
    {"POST", "/chat/completions", handle_chat_completions},
    {"POST", "/v1/completions", handle_completions},
    {"POST", "/completions", handle_completions},
    {"POST", "/completion", handle_completion},
    {"POST", "/tokenize", handle_tokenize},
    {"POST", "/detokenize", handle_detokenize},
    {"POST", "/apply-template", handle_apply_template},
    {"POST", "/v1/embeddings", handle_embeddings},
    {"POST", "/embeddings", handle_embeddings},
    {"POST", "/plumb/trace", handle_trace},
    {"POST", "/plumb/compare", handle_compare},
    {"POST", "/plumb/hidden", handle_hidden},
    {"POST", "/plumb/record", handle_record},
    {"POST", "/plumb/replay", handle_replay},
    {"POST", "/v1/responses", handle_responses},
    {"POST", "/v1/messages", handle_messages, false, ApiStyle::anthropic},
    {"POST", "/v1/messages/count_tokens", handle_count_tokens, false, ApiStyle::anthropic},
};

bool is_page(const std::string& path) {
  if (path == "/") return true;
  return std::any_of(web_files().begin(), web_files().end(),
                     [&](const EmbeddedFile& f) { return "/" + std::string(f.name) == path; });
}

constexpr Route kPage = {"GET", "/", nullptr, true};  // answered without a Call, also while the model loads

// The route of a path, whatever its method; or null.
const Route* find_route(const HttpRequest& r) {
  if (is_page(r.path)) return &kPage;
  const auto* it = std::find_if(std::begin(kRoutes), std::end(kRoutes),
                                [&](const Route& route) { return route.path == r.path; });
  return it == std::end(kRoutes) ? nullptr : it;
}

// Adds what the answer to a listed Origin must carry.
class WithHeaders : public Reply {
 public:
  WithHeaders(std::shared_ptr<Reply> to, std::vector<Header> headers)
      : to_(std::move(to)), headers_(std::move(headers)) {}
  void send(HttpResponse r) override {
    r.headers.insert(r.headers.end(), headers_.begin(), headers_.end());
    to_->send(std::move(r));
  }
  void begin(int status, std::string type, std::vector<Header> headers) override {
    headers.insert(headers.end(), headers_.begin(), headers_.end());
    to_->begin(status, std::move(type), std::move(headers));
  }
  void write(std::string bytes) override { to_->write(std::move(bytes)); }
  void end() override { to_->end(); }
  void on_gone(std::function<void()> f) override { to_->on_gone(std::move(f)); }

 private:
  std::shared_ptr<Reply> to_;
  std::vector<Header> headers_;
};

}  // namespace

struct Server::State {
  State(AccessOptions a, std::function<void(const std::string&)> log)
      : access(std::move(a)), traffic(std::move(log)) {}

  std::optional<HttpResponse> screen(const HttpRequest& r);
  std::optional<HttpResponse> refusal(const HttpRequest& r, const Route* route);
  void handle(HttpRequest request, std::shared_ptr<Reply> reply);

  std::optional<Service> service;
  std::atomic<bool> loaded = false;  // there is a service
  Access access;
  Traffic traffic;
  std::unique_ptr<Listener> listener;
};

std::optional<HttpResponse> Server::State::screen(const HttpRequest& r) {
  const Route* route = find_route(r);
  std::optional<HttpResponse> refused = refusal(r, route);
  if (refused) traffic.ended(route ? route->path : "other", r, refused->status, 0);
  return refused;
}

std::optional<HttpResponse> Server::State::refusal(const HttpRequest& r, const Route* route) {
  const ApiStyle style = route ? route->style : ApiStyle::openai;
  const auto refusal = [&](int status, const std::string& message) {
    return error_response(make_failure(status, message), style);
  };
  try {
    access.check(r, route && route->open);
  } catch (const HttpError& e) {
    return refusal(e.status, e.message);
  }
  if (r.method == "OPTIONS" && route) return HttpResponse{204, "", "", access.cors(r)};
  if (!route) return refusal(404, "there is no " + printable(r.path));
  const bool head = r.method == "HEAD" && std::string_view(route->method) == "GET";
  if (r.method != route->method && !head) {
    HttpResponse response = refusal(405, printable(r.path) + " takes " + route->method);
    response.headers.push_back({"Allow", route->method});
    return response;
  }
  if (!loaded && route != &kPage) {
    HttpResponse response = route->handle == handle_health ? HttpResponse{503, "{\"status\":\"loading\"}"}
                                                           : refusal(503, "the model is being loaded");
    response.headers.push_back({"Retry-After", "1"});
    return response;
  }
  if (r.method == "POST") {
    const std::string* type = r.header("content-type");
    const std::string base = type ? type->substr(0, type->find(';')) : "";
    if (base != "application/json" && base != "application/json ")
      return refusal(415, "the body must be application/json");
  }
  return {};
}

void Server::State::handle(HttpRequest request, std::shared_ptr<Reply> reply) {
  const Route* route = find_route(request);
  if (const std::vector<Header> cors = access.cors(request); !cors.empty())
    reply = std::make_shared<WithHeaders>(std::move(reply), cors);
  reply = traffic.watch(route->path, request, std::move(reply));
  if (route == &kPage) return reply->send(page_file(request.path));
  Call call{
      .service = *service, .request = std::move(request), .reply = std::move(reply), .traffic = &traffic};
  try {
    call.scope = access.scope(call.request);
    if (call.request.method == "POST") {
      call.body = parse_json(call.request.body, "body");
      call.request.body = {};
      if (!call.body.object()) refuse_field("", "an object", "another value");
    }
    route->handle(call);
  } catch (...) {
    call.reply->send(error_response(describe_failure(std::current_exception()), route->style));
  }
}

Server::Server(AccessOptions access, ListenOptions listen, bool insecure,
               std::function<void(const std::string&)> log) {
  if (!is_loopback(access.host) && access.keys.empty() && !insecure) {
    throw Error({.code = "usage.open",
                 .expected = "--api-key or --api-key-file with a --host that others can reach",
                 .found = "neither",
                 .where = {.key = "--host"},
                 .remedy = "or say --insecure-no-auth"});
  }
  state_ = std::make_unique<State>(std::move(access), std::move(log));
  State& s = *state_;
  s.listener = std::make_unique<Listener>(
      std::move(listen),
      ListenHandlers{
          .screen = [&s](const HttpRequest& r) { return s.screen(r); },
          .handle = [&s](HttpRequest r, std::shared_ptr<Reply> to) { s.handle(std::move(r), std::move(to)); },
          .refusal =
              [&s](int status, const std::string& message) {
                s.traffic.refused(status);
                return dump(error_json(make_failure(status, message), ApiStyle::openai));
              },
          .drain =
              [&s] {
                if (s.loaded) s.service->scheduler.drain();
              },
          .cut_off =
              [&s] {
                if (!s.loaded) return;
                s.service->scheduler.cancel_all();
                s.service->aside->stop();
              }});
}

Server::~Server() = default;

void Server::open(Service service) {
  state_->service.emplace(std::move(service));
  state_->loaded = true;
}

std::vector<std::pair<std::string, std::string>> Server::routes() {
  std::vector<std::pair<std::string, std::string>> out;
  for (const Route& r : kRoutes) out.emplace_back(r.method, r.path);
  return out;
}

int Server::port() const { return state_->listener->port(); }
void Server::run() { state_->listener->run(); }
void Server::stop() { state_->listener->stop(); }

}  // namespace plumb::server
