// Work that takes long and is in no hurry: one piece at a time, on a thread of low priority, so that neither
// the threads of the sockets nor answers under way wait for it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "server/http.h"

namespace plumb::server {

class Aside {
 public:
  /// At most `most_waiting` pieces wait.
  explicit Aside(int most_waiting);
  ~Aside();  // stops, and waits for the piece that runs

  /// `gone` becomes true when nobody waits for the result any more.
  using Work = std::function<void(std::atomic<bool>& gone)>;

  /// Does the work when its turn comes: pieces of one scope in order, of several by turns. It answers through
  /// `reply` itself; what it throws is answered here. Throws Error "queue.full".
  void submit(int scope, std::shared_ptr<Reply> reply, Work work);

  /// From any thread: tells what runs to end, and answers 503 to what waits or comes.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb::server
