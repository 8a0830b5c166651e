// After a failed kernel the answers under way end with it, and the next ones are as if nothing had been.
#include <gtest/gtest.h>

#include <future>

#include "cuda/api.h"
#include "engine/scheduler.h"
#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::TinyFile;

// Kernels on a processor, of which from a moment on every one fails until the device is opened again.
bool failed = false;
int opened = 0;
cuda::Api failing() {
  cuda::Api api = *plumb_cuda_api();
  api.open = [](int device, cuda::Context** out, cuda::DeviceInfo* info) {
    failed = false, ++opened;
    return plumb_cuda_api()->open(device, out, info);
  };
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

TEST(CudaRecovery, AFailedKernelEndsTheAnswersUnderWayAndTheNextAreAsBefore) {
  const TinyFile file({.format = Format::Q4_0, .vocabulary = true});
  const Model model(file.path(), {.threads = 2});
  const cuda::Api api = failing();
  opened = 0;
  const RunnerOptions options{
      .backend = Backend::cuda, .n_ctx = 64, .rounding = Rounding::int16, .cuda_api = &api};
  Scheduler s(model, options, {.slots = 2});
  const int before = opened;
  const std::vector<int> want = answer(s);
  EXPECT_EQ(want.size(), 6u);
  EXPECT_EQ(code_of([&] { answer(s, [] { failed = true; }); }), "cuda.failed");
  EXPECT_EQ(answer(s), want);
  EXPECT_GT(opened, before);
  EXPECT_EQ(s.counts().failed, 1);
}

}  // namespace
}  // namespace plumb
