// Work aside: one piece at a time, by turns, with an end that nobody waits for.
#include "server/aside.h"

#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "engine/test_support.h"

namespace plumb::server {
namespace {

using testing::code_of;

// Remembers what was sent, and plays the client that goes away.
class Heard : public Reply {
 public:
  void send(HttpResponse r) override { sent_.set_value(r.status); }
  void begin(int, std::string, std::vector<Header>) override {}
  void write(std::string) override {}
  void end() override {}
  void on_gone(std::function<void()> f) override { on_gone_ = std::move(f); }

  void leave() { on_gone_(); }
  int status() { return sent_.get_future().get(); }

 private:
  std::promise<int> sent_;
  std::function<void()> on_gone_;
};

// A piece that runs until it is let go or gone.
struct Blocking {
  explicit Blocking(Aside& aside) {
    aside.submit(0, reply, [this](std::atomic<bool>& gone) {
      begun.set_value();
      while (!gone && !free) std::this_thread::yield();
      if (gone) throw Error({.code = "run.cancelled"});
      reply->send({});
    });
    begun.get_future().wait();
  }
  std::shared_ptr<Heard> reply = std::make_shared<Heard>();
  std::promise<void> begun;
  std::atomic<bool> free = false;
};

TEST(Aside, ScopesTakeTurnsAndTheQueueIsBounded) {
  Aside aside(4);
  Blocking first(aside);
  std::mutex mutex;
  std::vector<int> order;
  std::vector<std::shared_ptr<Heard>> replies;
  for (int piece : {10, 11, 12, 20}) {
    replies.push_back(std::make_shared<Heard>());
    aside.submit(piece / 10, replies.back(), [&, piece, reply = replies.back()](std::atomic<bool>&) {
      const std::lock_guard lock(mutex);
      order.push_back(piece), reply->send({});
    });
  }
  EXPECT_EQ(code_of([&] { aside.submit(3, std::make_shared<Heard>(), [](std::atomic<bool>&) {}); }),
            "queue.full");
  first.free = true;
  for (const auto& reply : replies) EXPECT_EQ(reply->status(), 200);
  EXPECT_EQ(order, (std::vector<int>{10, 20, 11, 12}));
}

TEST(Aside, WhatIsThrownIsAnswered) {
  Aside aside(1);
  const auto reply = std::make_shared<Heard>();
  aside.submit(0, reply, [](std::atomic<bool>&) { throw Error({.code = "request.field"}); });
  EXPECT_EQ(reply->status(), 400);
}

TEST(Aside, AClientThatLeavesIsNotWorkedFor) {
  Aside aside(4);
  Blocking first(aside);
  const auto left = std::make_shared<Heard>(), stays = std::make_shared<Heard>();
  std::atomic<bool> ran = false;
  aside.submit(0, left, [&](std::atomic<bool>&) { ran = true; });
  aside.submit(0, stays, [&](std::atomic<bool>&) { stays->send({}); });
  left->leave(), first.reply->leave();
  EXPECT_EQ(stays->status(), 200);
  EXPECT_FALSE(ran);
}

TEST(Aside, TheEndAnswersWhatRunsAndWhatWaits) {
  Aside aside(4);
  Blocking first(aside);
  const auto waits = std::make_shared<Heard>();
  aside.submit(0, waits, [](std::atomic<bool>&) {});
  aside.stop();
  EXPECT_EQ(waits->status(), 503);
  EXPECT_EQ(first.reply->status(), 503);
  EXPECT_EQ(code_of([&] { aside.submit(0, waits, [](std::atomic<bool>&) {}); }), "server.ending");
}

}  // namespace
}  // namespace plumb::server
