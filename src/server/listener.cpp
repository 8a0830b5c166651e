#include "server/listener.h"

#include <fmt/format.h>
#include <signal.h>

#include <boost/asio.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <deque>
#include <list>
#include <map>

#include "base/error.h"
#include "server/deadline.h"

namespace plumb::server {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
using Tcp = net::ip::tcp;
using boost::system::error_code;
constexpr auto kTuple = net::as_tuple(net::use_awaitable);

// The way from a handler, on any thread, to the connection's coroutine: everything is posted to its thread.
class Exchange : public Reply, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(net::any_io_executor executor, bool keep_alive, int minor_version, bool head_only)
      : wake(executor), keep_alive_(keep_alive), minor_version_(minor_version), head_only_(head_only) {}

  void send(HttpResponse r) override {
    const int64_t length = r.status == 204 ? 0 : int64_t(r.body.size());
    std::string bytes = head_text(r.status, r.type, r.headers, length, keep_alive_, minor_version_);
    if (!head_only_) bytes += r.body;
    put(std::move(bytes), false, true);
  }

  void begin(int status, std::string type, std::vector<Header> headers) override {
    headers.push_back({"Cache-Control", "no-store"});
    put(head_text(status, type, headers, -1, keep_alive_ && minor_version_ == 1, minor_version_), false,
        false);
  }

  void write(std::string bytes) override {
    if (bytes.empty()) return;
    put(minor_version_ == 1 ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes) : std::move(bytes), true,
        false);
  }

  void end() override { put(minor_version_ == 1 ? "0\r\n\r\n" : "", true, true); }

  void on_gone(std::function<void()> f) override {
    post([f = std::move(f)](Exchange& e) {
      if (e.gone) return f();
      if (!e.ended) e.on_gone_ = f;
    });
  }

  void leave() {  // on the connection's thread: the client is gone
    gone = true;
    if (on_gone_) std::exchange(on_gone_, {})();
    wake.cancel();
  }

  bool keeps_alive(bool streamed) const { return keep_alive_ && (!streamed || minor_version_ == 1); }

  net::steady_timer wake;  // cancelled when there is something new
  std::deque<std::string> out;
  bool ended = false, gone = false, chunked = false;

 private:
  template <class F>
  void post(F f) {
    net::post(wake.get_executor(), [self = shared_from_this(), f = std::move(f)] { f(*self); });
  }

  void put(std::string bytes, bool stream, bool last) {
    post([bytes = std::move(bytes), stream, last](Exchange& e) {
      if (e.gone || e.ended) return;
      e.chunked |= stream;
      e.ended = last;
      if (last) e.on_gone_ = {};
      int64_t waiting = 0;
      for (const std::string& b : e.out) waiting += int64_t(b.size());
      if (stream && waiting > kMaxStreamBytes) return e.leave();
      if (!bytes.empty()) e.out.push_back(bytes);
      e.wake.cancel();
    });
  }

  const bool keep_alive_;
  const int minor_version_;
  const bool head_only_;
  std::function<void()> on_gone_;
};

// A handler that forgets its request must not leave the client waiting.
class Careful : public Reply {
 public:
  Careful(std::shared_ptr<Exchange> to, std::function<HttpResponse()> sorry)
      : to_(std::move(to)), sorry_(std::move(sorry)) {}
  ~Careful() override {
    if (answered_) return;
    to_->send(sorry_());
  }
  void send(HttpResponse r) override { answered_ = true, to_->send(std::move(r)); }
  void begin(int status, std::string type, std::vector<Header> headers) override {
    answered_ = true, to_->begin(status, std::move(type), std::move(headers));
  }
  void write(std::string bytes) override { to_->write(std::move(bytes)); }
  void end() override { to_->end(); }
  void on_gone(std::function<void()> f) override { to_->on_gone(std::move(f)); }

 private:
  std::shared_ptr<Exchange> to_;
  std::function<HttpResponse()> sorry_;
  std::atomic<bool> answered_ = false;
};

}  // namespace

struct Listener::State {
  State(ListenOptions o, ListenHandlers h)
      : options(std::move(o)),
        handlers(std::move(h)),
        acceptor(io),
        signals(io),
        drain_timer(io),
        workers(size_t(options.workers)) {}

  void bind();
  net::awaitable<void> accept();
  net::awaitable<void> serve(Tcp::socket socket, std::string address, uint64_t number, bool loopback);
  net::awaitable<std::pair<error_code, size_t>> read_head(beast::tcp_stream& stream,
                                                          beast::flat_buffer& buffer);
  net::awaitable<bool> one_request(beast::tcp_stream& stream, beast::flat_buffer& buffer, HttpRequest from);
  net::awaitable<bool> read_body(beast::tcp_stream& stream, beast::flat_buffer& buffer, size_t head,
                                 HttpRequest& request);
  net::awaitable<void> refuse(beast::tcp_stream& stream, HttpResponse response);
  net::awaitable<void> watch(beast::tcp_stream& stream, std::weak_ptr<Exchange> exchange);
  net::awaitable<bool> answer(beast::tcp_stream& stream, std::shared_ptr<Exchange> exchange);
  net::awaitable<void> wait_for_signal();
  HttpResponse refusal(int status, const std::string& message) const {
    return {status, handlers.refusal(status, message)};
  }

  ListenOptions options;
  ListenHandlers handlers;
  net::io_context io{1};
  Tcp::acceptor acceptor;
  net::signal_set signals;
  net::steady_timer drain_timer;
  net::thread_pool workers;
  std::map<std::string, int> per_address;
  std::list<beast::tcp_stream*> waiting;  // whose heads have not come yet, the longest first
  int connections = 0, exchanges = 0;
  bool draining = false;
  uint64_t count = 0;
};

int open_socket(const ListenOptions& options) {
  try {
    net::io_context io;
    Tcp::resolver resolver(io);
    const auto found = resolver.resolve(options.host, std::to_string(options.port), Tcp::resolver::passive);
    const Tcp::endpoint at = found.begin()->endpoint();
    Tcp::acceptor acceptor(io);
    acceptor.open(at.protocol());
    acceptor.set_option(net::socket_base::reuse_address(true));
    acceptor.bind(at);
    acceptor.listen(1024);
    return acceptor.release();
  } catch (const boost::system::system_error& e) {
    throw Error({.code = "net.bind",
                 .expected = fmt::format("to listen at {}:{}", options.host, options.port),
                 .found = e.code().message(),
                 .remedy = "choose another --host or --port"});
  }
}

void Listener::State::bind() {
  const int socket = options.socket < 0 ? open_socket(options) : ::dup(options.socket);
  sockaddr address{};
  socklen_t size = sizeof address;
  ::getsockname(socket, &address, &size);
  acceptor.assign(address.sa_family == AF_INET6 ? Tcp::v6() : Tcp::v4(), socket);
}

net::awaitable<void> Listener::State::accept() {
  while (acceptor.is_open()) {
    auto [error, socket] = co_await acceptor.async_accept(kTuple);
    if (error == net::error::operation_aborted || !acceptor.is_open()) co_return;
    if (error) {  // out of descriptors, most likely
      drain_timer.expires_after(duration(0.05));
      co_await drain_timer.async_wait(kTuple);
      continue;
    }
    error_code ignored;
    const auto address = socket.remote_endpoint(ignored).address();
    socket.set_option(Tcp::no_delay(true), ignored);
    net::co_spawn(io, serve(std::move(socket), address.to_string(), ++count, address.is_loopback()),
                  net::detached);
  }
}

// The answer, the end of our side, and a little patience, so that a client that is still sending sees it.
net::awaitable<void> Listener::State::refuse(beast::tcp_stream& stream, HttpResponse r) {
  const std::string bytes = head_text(r.status, r.type, r.headers, int64_t(r.body.size()), false, 1) + r.body;
  stream.expires_after(duration(1));
  co_await net::async_write(stream, net::buffer(bytes), kTuple);
  error_code ignored;
  stream.socket().shutdown(Tcp::socket::shutdown_send, ignored);
  std::array<char, 16384> sink;
  for (int i = 0; i < 256; ++i) {
    const auto [error, n] = co_await stream.async_read_some(net::buffer(sink), kTuple);
    if (error) break;
  }
}

net::awaitable<void> Listener::State::serve(Tcp::socket socket, std::string address, uint64_t number,
                                            bool loopback) {
  ++connections, ++per_address[address];
  beast::tcp_stream stream(std::move(socket));
  if (connections > kMaxConnections && !waiting.empty()) {  // who dawdles makes room
    error_code ignored;
    waiting.front()->socket().cancel(ignored);
    waiting.pop_front();
  }
  if (connections > kMaxConnections + 64 || (!loopback && per_address[address] > kMaxConnectionsPerAddress)) {
    co_await refuse(stream, refusal(503, "too many connections"));
  } else {
    beast::flat_buffer buffer(size_t{kMaxHeadBytes});
    HttpRequest from;
    from.remote = address, from.connection = number, from.loopback = loopback;
    while (co_await one_request(stream, buffer, from)) {
    }
  }
  error_code ignored;
  stream.socket().shutdown(Tcp::socket::shutdown_both, ignored);
  if (--per_address[address] == 0) per_address.erase(address);
  --connections;
}

net::awaitable<std::pair<error_code, size_t>> Listener::State::read_head(beast::tcp_stream& stream,
                                                                         beast::flat_buffer& buffer) {
  if (buffer.size() == 0) {  // idle between requests
    stream.expires_after(duration(options.idle_seconds));
    const auto [error, n] = co_await stream.async_read_some(buffer.prepare(4096), kTuple);
    if (error) co_return std::pair(error, size_t(0));
    buffer.commit(n);
  }
  stream.expires_never();
  const Deadline deadline(stream, options.head_seconds);
  const auto [error, n] = co_await net::async_read_until(stream, buffer, "\r\n\r\n", kTuple);
  co_return std::pair(deadline.passed() ? make_error_code(beast::error::timeout) : error, n);
}

net::awaitable<bool> Listener::State::one_request(beast::tcp_stream& stream, beast::flat_buffer& buffer,
                                                  HttpRequest from) {
  waiting.push_back(&stream);
  const auto [error, head] = co_await read_head(stream, buffer);
  waiting.remove(&stream);
  if (error == net::error::not_found)
    co_await refuse(stream, refusal(431, fmt::format("a head of over {} bytes", kMaxHeadBytes)));
  if (error == beast::error::timeout && buffer.size() > 0)
    co_await refuse(stream, refusal(408, "the head took too long"));
  if (error) co_return false;
  HttpRequest request;
  std::optional<HttpResponse> refused;
  try {
    request = parse_head({static_cast<const char*>(buffer.data().data()), head});
    request.remote = from.remote, request.connection = from.connection, request.loopback = from.loopback;
    refused = handlers.screen(request);
  } catch (const HttpError& e) {
    refused = refusal(e.status, e.message);
  }
  if (refused) {
    co_await refuse(stream, std::move(*refused));
    co_return false;
  }
  if (!co_await read_body(stream, buffer, head, request)) co_return false;
  const auto exchange =
      std::make_shared<Exchange>(co_await net::this_coro::executor, request.keep_alive && !draining,
                                 request.minor_version, request.method == "HEAD");
  ++exchanges;
  net::post(workers, [this, r = std::move(request), exchange]() mutable {
    handlers.handle(std::move(r), std::make_shared<Careful>(
                                      exchange, [this] { return refusal(500, "no answer was made"); }));
  });
  net::co_spawn(io, watch(stream, exchange), net::detached);
  const bool more = co_await answer(stream, exchange);
  --exchanges;
  co_return more && !draining;
}

net::awaitable<bool> Listener::State::read_body(beast::tcp_stream& stream, beast::flat_buffer& buffer,
                                                size_t head, HttpRequest& request) {
  if (!request.chunked && request.content_length == 0) {
    buffer.consume(head);
    co_return true;
  }
  stream.expires_never();
  const Deadline deadline(stream, options.body_seconds);
  if (request.expects_continue)
    co_await net::async_write(stream, net::buffer(std::string_view("HTTP/1.1 100 Continue\r\n\r\n")), kTuple);
  beast::http::request_parser<beast::http::string_body> parser;
  parser.body_limit(uint64_t{kMaxBodyBytes});
  parser.header_limit(uint32_t{kMaxHeadBytes});
  auto [error, n] = co_await beast::http::async_read(stream, buffer, parser, kTuple);
  if (deadline.passed()) error = beast::error::timeout;
  if (!error) {
    request.body = std::move(parser.get().body());
    co_return true;
  }
  if (error == beast::http::error::body_limit) {
    co_await refuse(stream, refusal(413, fmt::format("a body of over {} bytes", kMaxBodyBytes)));
  } else if (error == beast::error::timeout) {
    co_await refuse(stream, refusal(408, "the body took too long"));
  } else if (error.category() == make_error_code(beast::http::error::bad_chunk).category()) {
    co_await refuse(stream, refusal(400, "a body that is framed badly: " + error.message()));
  }
  co_return false;
}

// Notices that a client has gone while its answer is made. Bytes that come instead are its next request.
net::awaitable<void> Listener::State::watch(beast::tcp_stream& stream, std::weak_ptr<Exchange> exchange) {
  const auto [error] = co_await stream.socket().async_wait(Tcp::socket::wait_read, kTuple);
  const auto e = exchange.lock();
  if (!e || e->gone || (e->ended && e->out.empty()) || error == net::error::operation_aborted) co_return;
  char byte;
  error_code peeked;
  stream.socket().receive(net::buffer(&byte, 1), Tcp::socket::message_peek, peeked);
  if (peeked && peeked != net::error::would_block) e->leave();
}

net::awaitable<bool> Listener::State::answer(beast::tcp_stream& stream, std::shared_ptr<Exchange> e) {
  while (!e->gone) {
    while (!e->out.empty() && !e->gone) {
      const std::string bytes = std::move(e->out.front());
      e->out.pop_front();
      stream.expires_after(duration(options.write_seconds));
      const auto [error, n] = co_await net::async_write(stream, net::buffer(bytes), kTuple);
      if (error) e->leave();
    }
    if (e->ended || e->gone) break;
    e->wake.expires_at(std::chrono::steady_clock::time_point::max());
    co_await e->wake.async_wait(kTuple);
  }
  error_code ignored;
  stream.socket().cancel(ignored);  // the watcher
  co_return !e->gone && e->keeps_alive(e->chunked);
}

net::awaitable<void> Listener::State::wait_for_signal() {
  const auto [error, number] = co_await signals.async_wait(kTuple);
  if (error) co_return;
  draining = true;
  error_code ignored;
  acceptor.close(ignored);
  handlers.drain();
  signals.async_wait([this](error_code e, int) {  // a second one
    if (!e) handlers.cut_off(), io.stop();
  });
  double waited = 0;
  for (; exchanges > 0 && waited < options.drain_seconds + 1; waited += 0.02) {
    if (waited >= options.drain_seconds && waited < options.drain_seconds + 0.02) handlers.cut_off();
    drain_timer.expires_after(duration(0.02));
    co_await drain_timer.async_wait(kTuple);
  }
  io.stop();
}

Listener::Listener(ListenOptions options, ListenHandlers handlers)
    : state_(std::make_unique<State>(std::move(options), std::move(handlers))) {
  state_->bind();
}

Listener::~Listener() {
  state_->workers.stop();
  state_->workers.join();
}

int Listener::port() const { return state_->acceptor.local_endpoint().port(); }

void Listener::run() {
  State& s = *state_;
  ::signal(SIGPIPE, SIG_IGN);
  s.signals.add(SIGTERM);
  s.signals.add(SIGINT);
  net::co_spawn(s.io, s.accept(), net::detached);
  net::co_spawn(s.io, s.wait_for_signal(), net::detached);
  s.io.run();
  s.workers.stop();
  s.workers.join();
}

void Listener::stop() { state_->io.stop(); }

}  // namespace plumb::server
