// What has been asked and answered: counts by route and status for Prometheus, and a line of JSON for each
// request where somebody keeps a log. Neither holds keys, queries or texts.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "server/http.h"

namespace plumb::server {

class Traffic {
 public:
  /// `log` hears lines without their end, from any thread, one at a time.
  explicit Traffic(std::function<void(const std::string& line)> log) : log_(std::move(log)) {}

  /// `route` is one of ours, or "other": what clients invent must not grow the counts.
  void ended(const std::string& route, const HttpRequest& request, int status, double seconds);
  /// A head or body that was refused before it was a request.
  void refused(int status) { ended("other", {.method = "-", .path = "-"}, status, 0); }

  /// The reply, watched: when it is let go, its request has ended.
  std::shared_ptr<Reply> watch(std::string route, const HttpRequest& request, std::shared_ptr<Reply> reply);

  std::string metrics() const;

 private:
  const std::function<void(const std::string&)> log_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> counts_;
};

}  // namespace plumb::server
