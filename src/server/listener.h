// Sockets: accepts connections, reads requests within limits of size and time, writes answers. One thread
// waits for all of them; requests are handled by a few others.
#pragma once

#include <functional>
#include <memory>

#include "server/http.h"

namespace plumb::server {

struct ListenOptions {
  std::string host = "127.0.0.1";
  int port = 8080;  // 0: any free one
  int socket = -1;  // of open_socket() instead of these; stays the caller's
  int workers = 2;  // threads that handle requests
  double head_seconds = 10, body_seconds = 30, idle_seconds = 60, write_seconds = 30;
  double drain_seconds = 30;  // after SIGTERM, until what still runs is cut off
};

/// A socket that listens at host and port, without a thread: who forks children that serve keeps it open over
/// their deaths. Throws Error "net.bind".
int open_socket(const ListenOptions& options);

struct ListenHandlers {
  /// Looks at a request before its body is read; an answer ends it.
  std::function<std::optional<HttpResponse>(const HttpRequest&)> screen;
  /// Called on a worker thread.
  std::function<void(HttpRequest, std::shared_ptr<Reply>)> handle;
  /// The JSON body of a refusal by the listener itself.
  std::function<std::string(int status, const std::string& message)> refusal;
  /// A signal asked for the end; then, if it takes too long, everything should be cut off.
  std::function<void()> drain, cut_off;
};

class Listener {
 public:
  /// Binds at once: throws Error "net.bind".
  Listener(ListenOptions options, ListenHandlers handlers);
  ~Listener();

  int port() const;
  /// Until SIGTERM or SIGINT and until what runs then has ended; or, from any thread, stop().
  void run();
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb::server
