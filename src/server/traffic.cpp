#include "server/traffic.h"

#include <fmt/format.h>

#include <atomic>

#include "base/json.h"

namespace plumb::server {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kClientGone = 499;  // as nginx logs it
constexpr size_t kMaxShownBytes = 200;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Watched : public Reply {
 public:
  Watched(Traffic& traffic, std::string route, const HttpRequest& r, std::shared_ptr<Reply> to)
      : traffic_(traffic),
        route_(std::move(route)),
        request_{.method = r.method, .path = r.path, .remote = r.remote},
        to_(std::move(to)) {}
  ~Watched() override { traffic_.ended(route_, request_, status_, seconds_since(start_)); }
  void send(HttpResponse r) override { status_ = r.status, to_->send(std::move(r)); }
  void begin(int status, std::string type, std::vector<Header> headers) override {
    status_ = status, to_->begin(status, std::move(type), std::move(headers));
  }
  void write(std::string bytes) override { to_->write(std::move(bytes)); }
  void end() override { to_->end(); }
  void on_gone(std::function<void()> f) override { to_->on_gone(std::move(f)); }

 private:
  Traffic& traffic_;
  const std::string route_;
  const HttpRequest request_;
  const std::shared_ptr<Reply> to_;
  const Clock::time_point start_ = Clock::now();
  std::atomic<int> status_ = kClientGone;
};

}  // namespace

void Traffic::ended(const std::string& route, const HttpRequest& r, int status, double seconds) {
  const std::lock_guard lock(mutex_);
  ++counts_[{route, status}];
  if (!log_) return;
  Json line;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  line.set("time", double(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()) / 1000);
  line.set("remote", r.remote), line.set("method", r.method.substr(0, kMaxShownBytes));
  line.set("path", r.path.substr(0, kMaxShownBytes));
  line.set("status", status), line.set("seconds", seconds);
  log_(dump(line, {.ascii = true}));
}

std::shared_ptr<Reply> Traffic::watch(std::string route, const HttpRequest& request,
                                      std::shared_ptr<Reply> reply) {
  return std::make_shared<Watched>(*this, std::move(route), request, std::move(reply));
}

std::string Traffic::metrics() const {
  std::string out = "# TYPE plumb:requests_total counter\n";
  const std::lock_guard lock(mutex_);
  for (const auto& [key, n] : counts_)
    out += fmt::format("plumb:requests_total{{route=\"{}\",status=\"{}\"}} {}\n", key.first, key.second, n);
  return out;
}

}  // namespace plumb::server
