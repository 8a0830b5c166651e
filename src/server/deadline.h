// A limit of time for what reads from a socket.
#pragma once

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <chrono>
#include <memory>

namespace plumb::server {

inline std::chrono::steady_clock::duration duration(double seconds) {
  return std::chrono::milliseconds(int64_t(seconds * 1000));
}

// Ends what reads from a socket after some time, but leaves the socket open, as the timeouts of
// beast::tcp_stream do not: the client shall hear 408.
class Deadline {
 public:
  Deadline(boost::beast::tcp_stream& stream, double seconds)
      : timer_(stream.get_executor()), state_(std::make_shared<State>(State{&stream.socket()})) {
    timer_.expires_after(duration(seconds));
    timer_.async_wait([state = state_](boost::system::error_code e) {
      if (e || !state->socket) return;
      state->passed = true;
      boost::system::error_code ignored;
      state->socket->cancel(ignored);
    });
  }
  ~Deadline() { state_->socket = nullptr; }
  bool passed() const { return state_->passed; }

 private:
  struct State {
    boost::asio::ip::tcp::socket* socket;
    bool passed = false;
  };
  boost::asio::steady_timer timer_;
  std::shared_ptr<State> state_;
};

}  // namespace plumb::server
