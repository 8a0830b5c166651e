#include "server/access.h"

#include <algorithm>
#include <chrono>

namespace plumb::server {
namespace {

constexpr int kMaxFailures = 5;  // a second, per address

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// An address cannot be made to point elsewhere, as a name can (DNS rebinding).
bool is_address(const std::string& host) {
  return host.find_first_not_of("0123456789.") == std::string::npos ||
         (host[0] == '[' && host.find_first_not_of("[]0123456789abcdefABCDEF:.") == std::string::npos);
}

int64_t now_in_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host == "[::1]" ||
         (host.starts_with("127.") && is_address(host));
}

std::string host_name(const std::string& host) {
  if (host.starts_with("[")) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

Access::Access(AccessOptions options) : options_(std::move(options)) {
  for (const std::string& key : options_.keys) digests_.push_back(sha256(key));
}

int Access::key_of(const HttpRequest& request) const {
  std::string key;
  if (const std::string* a = request.header("authorization"); a && a->size() > 7) {
    std::string scheme = a->substr(0, 7);
    std::transform(scheme.begin(), scheme.end(), scheme.begin(), [](char c) { return char(c | 32); });
    if (scheme == "bearer ") key = a->substr(7);
  }
  if (const std::string* k = request.header("x-api-key"); k && key.empty()) key = *k;
  // All digests are looked at whole, whatever the key: time tells nothing.
  const Sha256 digest = sha256(key);
  int found = 0;
  for (size_t i = 0; i < digests_.size(); ++i) {
    unsigned differs = 0;
    for (size_t b = 0; b < digest.size(); ++b) differs |= unsigned(digest[b] ^ digests_[i][b]);
    const int equal = int((differs - 1) >> 31);
    found |= -equal & int(i + 1) & -int(found == 0);
  }
  return found;
}

void Access::check(const HttpRequest& r, bool open) {
  const std::string* host = r.header("host");
  if (host) {
    const std::string name = host_name(*host);
    const bool known = is_loopback(name) || name == options_.host || contains(options_.allow_hosts, name) ||
                       (!is_loopback(options_.host) && is_address(name));
    if (!known) throw HttpError{421, "this server does not answer for that Host; see --allow-host"};
  }
  const std::string* origin = r.header("origin");
  const bool own = origin && host && *origin == "http://" + *host;
  if (origin && !own && !contains(options_.cors_origins, *origin) && !(open && r.method == "GET"))
    throw HttpError{403, "pages of that Origin may not ask; see --cors-origins"};
  if (open || !has_keys() || r.method == "OPTIONS") return;
  Failures& failures = failures_[r.remote];
  const int64_t second = now_in_seconds();
  if (failures.second != second) failures = {second, 0};
  if (failures.count >= kMaxFailures) throw HttpError{429, "too many wrong keys"};
  if (key_of(r) > 0) {
    failures_.erase(r.remote);
    return;
  }
  ++failures.count;
  if (failures_.size() > 10000)
    std::erase_if(failures_, [&](const auto& f) { return f.second.second != second; });
  throw HttpError{401, "an API key is needed: Authorization: Bearer KEY"};
}

int Access::scope(const HttpRequest& r) const {
  if (has_keys()) return key_of(r);
  return r.loopback ? 0 : -int(r.connection % 1'000'000'000) - 1;
}

std::vector<Header> Access::cors(const HttpRequest& r) const {
  const std::string* origin = r.header("origin");
  if (!origin || !contains(options_.cors_origins, *origin)) return {};
  std::vector<Header> headers = {{"Access-Control-Allow-Origin", *origin}, {"Vary", "Origin"}};
  if (r.method == "OPTIONS") {
    headers.push_back({"Access-Control-Allow-Methods", "GET, POST"});
    headers.push_back({"Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key"});
  }
  return headers;
}

}  // namespace plumb::server
