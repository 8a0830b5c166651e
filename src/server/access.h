// Who may ask, and from where: API keys, the Host that was meant, the Origin of a page that asks.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "server/http.h"

namespace plumb::server {

struct AccessOptions {
  std::string host = "127.0.0.1";
  std::vector<std::string> keys = {};
  std::vector<std::string> allow_hosts = {};
  std::vector<std::string> cors_origins = {};
};

class Access {
 public:
  explicit Access(AccessOptions options);

  bool has_keys() const { return !digests_.empty(); }

  /// Throws HttpError 421, 403, 401 or 429. `open`: a route that needs no key.
  void check(const HttpRequest& request, bool open);

  /// Number of the request's key, from 1; 0 where keys are not asked for and the client is on this machine;
  /// else below 0, another for each connection.
  int scope(const HttpRequest& request) const;

  /// Headers that let the page of a listed origin read the answer.
  std::vector<Header> cors(const HttpRequest& request) const;

 private:
  int key_of(const HttpRequest& request) const;  // from 1; 0: none of ours

  AccessOptions options_;
  std::vector<Sha256> digests_;
  struct Failures {
    int64_t second = 0;
    int count = 0;
  };
  std::map<std::string, Failures> failures_;  // by address
};

/// Whether an address is reached from this machine only.
bool is_loopback(const std::string& host);

/// "name:port" or "[::1]:port" without the port.
std::string host_name(const std::string& host);

}  // namespace plumb::server
