// Answers that share passes are those they would be alone; nobody waits for ever; what ends, ends once.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <future>

#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::TinyFile;

struct Heard {
  std::vector<int> ids;
  std::vector<ScoredToken> prompt;
  AnswerEvent end;
};

// Submits and waits for all.
class Listening {
 public:
  explicit Listening(Scheduler& s) : scheduler_(s) {}

  std::future<Heard> ask(AnswerRequest r) {
    auto heard = std::make_shared<Heard>();
    auto promise = std::make_shared<std::promise<Heard>>();
    std::future<Heard> result = promise->get_future();
    r.hear = [heard, promise](AnswerEvent e) {
      for (const ScoredToken& t : e.tokens) heard->ids.push_back(t.id);
      heard->prompt.insert(heard->prompt.end(), e.prompt.begin(), e.prompt.end());
      if (e.last()) heard->end = e, promise->set_value(*heard);
    };
    ticket = scheduler_.submit({std::move(r)});
    return result;
  }

  std::shared_ptr<Scheduler::Ticket> ticket;  // of the last one

 private:
  Scheduler& scheduler_;
};

AnswerRequest request(int length, int seed, int n, int scope = 0) {
  AnswerRequest r{
      .prompt = prompt(length, seed), .generate = {.n_predict = n, .ignore_eos = true}, .hear = {}};
  r.generate.sampler.seed = uint64_t(seed);
  r.scope = scope;
  return r;
}

class SchedulerOf : public ::testing::Test {
 protected:
  const TinyFile file{{.vocabulary = true}};
  const Model model{file.path(), {.threads = 2}};
};

TEST_F(SchedulerOf, EveryAnswerIsTheOneItGetsAloneWhateverIsCachedAndHoweverManySlots) {
  std::vector<std::vector<int>> alone;
  for (int slots : {1, 3, 8}) {
    Scheduler s(model, {.n_ubatch = 32}, {.slots = slots, .busy_prompt_tokens = 7});
    Listening listening(s);
    std::vector<std::future<Heard>> answers;
    for (int i = 0; i < 12; ++i) answers.push_back(listening.ask(request(5 + 29 * (i % 4), i % 6, 6 + i)));
    for (size_t i = 0; i < answers.size(); ++i) {
      const Heard h = answers[i].get();
      EXPECT_EQ(h.end.stop, Stop::limit);
      EXPECT_EQ(int(h.ids.size()), 6 + int(i));
      if (slots == 1) {
        alone.push_back(h.ids);
      } else {
        EXPECT_EQ(h.ids, alone[i]) << slots << " slots, answer " << i;
      }
    }
    EXPECT_TRUE(s.idle());
  }
}

TEST_F(SchedulerOf, WhatOneScopeReadIsFoundByItAlone) {
  Scheduler s(model, {}, {.slots = 2});
  Listening listening(s);
  EXPECT_EQ(listening.ask(request(300, 1, 4, 1)).get().end.times.cached_tokens, 0);
  EXPECT_EQ(listening.ask(request(300, 1, 4, 2)).get().end.times.cached_tokens, 0);
  const Heard again = listening.ask(request(300, 1, 4, 1)).get();
  EXPECT_EQ(again.end.times.cached_tokens, 299);
  AnswerRequest other = request(300, 1, 4, 1);
  other.prompt[280] ^= 1;
  const Heard missed = listening.ask(other).get();
  EXPECT_EQ(missed.end.times.cached_tokens, 280);
  EXPECT_EQ(missed.end.times.miss_position, 280);
  EXPECT_EQ(missed.end.times.miss_got, other.prompt[280]);
  other.cache_prompt = false;
  EXPECT_EQ(listening.ask(other).get().end.times.cached_tokens, 0);
}

TEST_F(SchedulerOf, ScoresOfAPromptAreThoseOfItsLogits) {
  Scheduler s(model, {}, {});
  Listening listening(s);
  AnswerRequest r = request(40, 3, 0);
  r.top = 2, r.score_from = 1;
  const Heard h = listening.ask(r).get();
  ASSERT_EQ(h.prompt.size(), 39u);
  EXPECT_EQ(h.ids.size(), 0u);
  Pool pool(1);
  for (size_t i : {size_t(0), size_t(20), size_t(38)}) {
    const std::vector<int> before(r.prompt.begin(), r.prompt.begin() + int64_t(i) + 1);
    const ScoredToken expected = score_token(pool, testing::logits(model, {}, before), r.prompt[i + 1], 2);
    EXPECT_EQ(h.prompt[i].id, expected.id);
    EXPECT_EQ(h.prompt[i].logprob, expected.logprob);
    EXPECT_EQ(h.prompt[i].top, expected.top);
  }
}

TEST_F(SchedulerOf, HashesAreThoseOfTheLogitsThatChoseWhateverIsCached) {
  EXPECT_EQ(hash_logits(std::vector<float>{1, -2}), 0xee4ac73c2bd27756u);
  Scheduler s(model, {}, {.slots = 2});
  for (int time = 0; time < 2; ++time) {
    AnswerRequest r = request(20, 4, 5);
    r.hash = true;
    std::vector<uint64_t> hashes;
    std::vector<int> ids = r.prompt;
    std::promise<void> ended;
    r.hear = [&](AnswerEvent e) {
      hashes.insert(hashes.end(), e.hashes.begin(), e.hashes.end());
      for (const ScoredToken& t : e.tokens) ids.push_back(t.id);
      if (e.last()) ended.set_value();
    };
    s.submit({std::move(r)});
    ended.get_future().wait();
    ASSERT_EQ(hashes.size(), 5u);
    for (size_t i = 0; i < 5; ++i) {
      const std::vector<int> before(ids.begin(), ids.begin() + 20 + int64_t(i));
      EXPECT_EQ(hashes[i], hash_logits(testing::logits(model, {}, before))) << i;
    }
  }
}

TEST_F(SchedulerOf, CancelledAnswersEndAtOnceAndFreeTheirSlot) {
  Scheduler s(model, {}, {.slots = 1});
  Listening listening(s);
  auto first = listening.ask(request(10, 1, 500));
  const auto ticket = listening.ticket;
  auto second = listening.ask(request(10, 2, 3));
  ticket->cancel();
  EXPECT_EQ(first.get().end.stop, Stop::cancelled);
  EXPECT_EQ(second.get().end.stop, Stop::limit);
}

TEST_F(SchedulerOf, AFullQueueRefusesAndTheEndTakesNoMore) {
  Scheduler s(model, {}, {.slots = 1, .queue = 2});
  Listening listening(s);
  std::vector<std::future<Heard>> taken;
  const std::string refused = code_of([&] {
    for (int i = 0; i < 50; ++i) taken.push_back(listening.ask(request(10, i, 300)));
  });
  EXPECT_EQ(refused, "queue.full");
  EXPECT_GE(taken.size(), 2u);
  EXPECT_EQ(s.counts().rejected, 1);
  EXPECT_EQ(code_of([&] { listening.ask(request(700, 1, 1)); }), "context.full");
  s.cancel_all();
  for (auto& t : taken) EXPECT_EQ(t.get().end.stop, Stop::cancelled);
  EXPECT_EQ(code_of([&] { listening.ask(request(5, 1, 1)); }), "queue.full");
}

TEST_F(SchedulerOf, ALongQueueOfOneDoesNotKeepAnotherWaiting) {
  Scheduler s(model, {}, {.slots = 2});
  Listening listening(s);
  std::vector<std::future<Heard>> many;
  for (int i = 0; i < 20; ++i) many.push_back(listening.ask(request(10, i, 60, 1)));
  listening.ask(request(10, 99, 5, 2)).get();
  int unfinished = 0;
  for (auto& m : many) unfinished += m.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
  EXPECT_GE(unfinished, 12);
}

TEST(PrefixCache, KeepsWhatWasUsedLastAndCountsSharedPagesOnce) {
  const TinyFile file({});
  const Model model(file.path(), {});
  const auto filled = [&](int64_t n) {
    KvCache cache(model.program(), {});
    cache.reserve(n);
    return cache;
  };
  const int64_t page = filled(1).page_bytes();
  PrefixCache kept(3 * page);
  kept.put(1, prompt(300, 1), filled(300));  // two pages
  KvCache longer(model.program(), {});
  longer.share(*kept.find(1, prompt(300, 1)).cache, 290);
  std::vector<int> ids = prompt(290, 1);
  ids.push_back(0);
  kept.put(1, ids, std::move(longer));  // one of them shared, one copied
  EXPECT_EQ(kept.bytes(), 3 * page);
  EXPECT_EQ(kept.texts(), 2);
  kept.put(1, prompt(20, 5), filled(20));
  EXPECT_EQ(kept.evictions(), 1);
  EXPECT_EQ(kept.find(1, prompt(300, 1)).length, 290);
  EXPECT_EQ(kept.find(2, prompt(300, 1)).length, 0);
}

}  // namespace
}  // namespace plumb
