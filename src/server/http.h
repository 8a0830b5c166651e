// Requests and answers as the rest of the server sees them; who reads and writes sockets stands in
// listener.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::server {

struct Header {
  std::string name, value;  // of a request: the name in lower case
};

struct HttpRequest {
  std::string method = {}, path = {}, query = {};
  int minor_version = 1;  // of HTTP/1
  std::vector<Header> headers = {};
  std::string body = {};
  std::string remote = {};  // address of the client
  uint64_t connection = 0;  // number of its connection
  bool loopback = false;    // the client is on this machine
  int64_t content_length = 0;
  bool chunked = false, expects_continue = false, keep_alive = true;

  const std::string* header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string body = {};
  std::string type = "application/json; charset=utf-8";
  std::vector<Header> headers = {};
};

/// A request that is refused before anybody looks at what it wants.
struct HttpError {
  int status;
  std::string message;
};

/// Reads a request's head, up to and with the empty line. Refuses what another reader might understand
/// otherwise, repairs nothing: throws HttpError.
HttpRequest parse_head(std::string_view head);

const char* status_text(int status);

/// The bytes of an answer's head. A `length` of -1 announces chunks, or to HTTP/1.0 the connection's end.
std::string head_text(int status, const std::string& type, const std::vector<Header>& headers, int64_t length,
                      bool keep_alive, int minor_version);

/// Where the answer to one request goes. Thread-safe; either send() once, or begin(), write()... and end().
/// When it is destroyed without an answer the client gets a 500.
class Reply {
 public:
  virtual ~Reply() = default;
  virtual void send(HttpResponse response) = 0;
  virtual void begin(int status, std::string type, std::vector<Header> headers) = 0;
  virtual void write(std::string bytes) = 0;
  virtual void end() = 0;
  /// Calls `f` once if the client goes away, or reads too slowly, before the answer is complete.
  virtual void on_gone(std::function<void()> f) = 0;
};

// Bounds (hardening: server).
inline constexpr int64_t kMaxHeadBytes = 16 << 10;
inline constexpr int64_t kMaxUriBytes = 8 << 10;
inline constexpr int kMaxHeaderFields = 100;
inline constexpr int64_t kMaxBodyBytes = 16 << 20;
inline constexpr int64_t kMaxStreamBytes = 256 << 10;  // written but not read by the client
inline constexpr int kMaxConnections = 512;
inline constexpr int kMaxConnectionsPerAddress = 64;  // loopback excepted

}  // namespace plumb::server
