// After a failed kernel the answers under way and all later ones end with it, and the owner hears of it once.
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "cuda/api.h"
#include "engine/scheduler.h"
#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::TinyFile;

// Kernels on a processor, of which from a moment on every one fails.
bool failed = false;
cuda::Api failing() {
  cuda::Api api = *plumb_cuda_api();
  api.linear = [](cuda::Context* c, const cuda::LinearOp& op) -> const char* {
    return failed ? "an illegal memory access was encountered" : plumb_cuda_api()->linear(c, op);
  };
  api.run = [](cuda::Context* c, cuda::Graph* graph) -> const char* {
    return failed ? "an illegal memory access was encountered" : plumb_cuda_api()->run(c, graph);
  };
  return api;
}

// The ids of an answer; `heard` after the first of them.
std::vector<int> answer(Scheduler& s, const std::function<void()>& heard = [] {}) {
  auto ids = std::make_shared<std::vector<int>>();
  auto end = std::make_shared<std::promise<void>>();
  AnswerRequest r{.prompt = prompt(9), .generate = {.n_predict = 6, .ignore_eos = true}, .hear = {}};
  r.generate.sampler.temperature = 0;
  r.hear = [=](const AnswerEvent& e) {
    for (const ScoredToken& t : e.tokens) ids->push_back(t.id);
    if (ids->size() == 1) heard();
    if (e.error) end->set_exception(e.error);
    if (e.stop) end->set_value();
  };
  s.submit({std::move(r)});
  end->get_future().get();
  return *ids;
}

TEST(CudaRecovery, AFailedKernelEndsTheAnswersUnderWayAndTheOwnerHearsOfItOnce) {
  const TinyFile file({.format = Format::Q4_0, .vocabulary = true});
  const Model model(file.path(), {.threads = 2});
  const cuda::Api api = failing();
  const RunnerOptions options{
      .backend = Backend::cuda, .n_ctx = 64, .rounding = Rounding::int16, .cuda_api = &api};
  std::atomic<int> heard = 0;
  SchedulerOptions two{.slots = 2};
  two.device_lost = [&] { ++heard; };
  Scheduler s(model, options, two);
  EXPECT_EQ(answer(s).size(), 6u);
  EXPECT_EQ(code_of([&] { answer(s, [] { failed = true; }); }), "cuda.failed");
  EXPECT_EQ(code_of([&] { answer(s); }), "cuda.failed");
  EXPECT_GE(s.counts().failed, 1);
  EXPECT_EQ(heard, 1);
}

}  // namespace
}  // namespace plumb
