#include "server/aside.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/priority.h"
#include "server/errors.h"

namespace plumb::server {
namespace {

struct Piece {
  int scope;
  std::shared_ptr<Reply> reply;
  Aside::Work work;
  std::shared_ptr<std::atomic<bool>> gone;

  void fail(std::exception_ptr error) const {
    reply->send(error_response(describe_failure(error), ApiStyle::openai));
  }
};

std::exception_ptr ending() {
  return std::make_exception_ptr(Error({.code = "server.ending", .found = "the end of the server"}));
}

}  // namespace

struct Aside::State {
  explicit State(int most_waiting) : most(most_waiting) {}

  void loop();
  std::optional<Piece> next();
  void run(Piece piece);

  const int most;
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Piece> waiting;
  std::shared_ptr<std::atomic<bool>> running;  // `gone` of the piece that runs
  int last_scope = -1;
  bool stopping = false;
  std::thread thread;  // the last member: it uses the others
};

Aside::Aside(int most_waiting) : state_(std::make_unique<State>(most_waiting)) {
  state_->thread = std::thread([s = state_.get()] { s->loop(); });
}

Aside::~Aside() {
  stop();
  state_->thread.join();
}

void Aside::submit(int scope, std::shared_ptr<Reply> reply, Work work) {
  const auto gone = std::make_shared<std::atomic<bool>>(false);
  reply->on_gone([gone] { *gone = true; });  // first: the work may say what else shall happen
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping) std::rethrow_exception(ending());
    if (int(state_->waiting.size()) >= state_->most) {
      throw Error({.code = "queue.full",
                   .expected = fmt::format("at most {} requests that wait to be measured", state_->most),
                   .found = "a full queue",
                   .remedy = "try again later"});
    }
    state_->waiting.push_back({scope, std::move(reply), std::move(work), gone});
  }
  state_->wake.notify_one();
}

void Aside::stop() {
  std::deque<Piece> left;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    if (state_->running) *state_->running = true;
    left.swap(state_->waiting);
  }
  state_->wake.notify_one();
  for (const Piece& piece : left) piece.fail(ending());
}

// Waits for a piece; none: the end.
std::optional<Piece> Aside::State::next() {
  std::unique_lock lock(mutex);
  running.reset();
  wake.wait(lock, [&] { return stopping || !waiting.empty(); });
  if (stopping) return {};
  auto it =
      std::find_if(waiting.begin(), waiting.end(), [&](const Piece& p) { return p.scope != last_scope; });
  if (it == waiting.end()) it = waiting.begin();
  Piece piece = std::move(*it);
  waiting.erase(it);
  running = piece.gone, last_scope = piece.scope;
  return piece;
}

void Aside::State::run(Piece piece) {
  if (*piece.gone) return;
  try {
    piece.work(*piece.gone);
  } catch (...) {
    std::unique_lock lock(mutex);
    const std::exception_ptr error = stopping ? ending() : std::current_exception();
    lock.unlock();
    piece.fail(error);
  }
}

void Aside::State::loop() {
  lower_priority();
  while (std::optional<Piece> piece = next()) run(std::move(*piece));
}

}  // namespace plumb::server
