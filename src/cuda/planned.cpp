// One call: its rows to every device, the steps or the graph that they are, and outputs back. A graph ends by
// writing logits to the host's memory itself and looking for infinities and NaN on the way: a copy behind the
// graph and the host's own look cost 20 us a token.
//
// Between calls all other ranks' work is behind the first's; steps that gather wait for the step before on
// all ranks. A part that others read is written again only behind the next such step (plan/plan.h).
#include "cuda/planned.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace plumb::cuda {
namespace {

PlanOptions of_rank(PlanOptions options, const RankProgram& of) {
  std::set<Value> observed;
  for (Value v : options.observed) observed.insert(of.whole[size_t(v)]);
  options.observed = std::move(observed);
  return options;
}

}  // namespace

Planned::Rank::Rank(const Program& program, int rank, int ranks, PlanOptions options,
                    const SequenceState& state, bool together)
    : of(rank_program(program, rank, ranks, options.observed)),
      plan(make_plan(of.program, of_rank(std::move(options), of))),
      executor(plan, state, together) {}

Planned::Planned(const Program& program, const PlanOptions& options,
                 const std::vector<const SequenceState*>& states, bool together)
    : program_(program), api_(states[0]->api), together_(together) {
  const int n = int(states.size());
  for (int r = 0; r < n; ++r)
    ranks_.push_back(std::make_unique<Rank>(program, r, n, options, *states[size_t(r)], together));
  std::vector<const Executor*> executors;
  executors.reserve(ranks_.size());
  for (const auto& rank : ranks_) executors.push_back(&rank->executor);
  for (const auto& rank : ranks_) rank->executor.gather_from(executors);
}

Planned::~Planned() {
  for (const auto& [call, graph] : graphs_) api_.drop(context(0), graph);
}

void Planned::follow(size_t rank, size_t other) {
  cuda::check(api_.follow(context(rank), context(other)), "wait for another device");
}

void Planned::others_follow_first() {
  if (ranks_.size() == 1) return;
  cuda::check(api_.mark(context(0)), "wait for another device");
  for (size_t r = 1; r < ranks_.size(); ++r) follow(r, 0);
}

void Planned::first_follows_others() {
  for (size_t r = 1; r < ranks_.size(); ++r) {
    cuda::check(api_.mark(context(r)), "wait for another device");
    follow(0, r);
  }
}

bool Planned::is_output(const Step& step) const {
  const auto* g = std::get_if<GatherStep>(&step.what);
  return g && g->out == ranks_[0]->of.program.output;
}

void Planned::steps(const Executor::Call& call) {
  for (size_t i = 0; i < plan().steps.size(); ++i) {
    const Step& step = plan().steps[i];
    if (step.wanted && call.wanted == 0) continue;
    size_t readers = ranks_.size();
    if (std::holds_alternative<GatherStep>(step.what)) {
      if (is_output(step)) readers = 1;  // the host reads the first's
      for (size_t r = 0; r < ranks_.size(); ++r) {
        if (r > 0 || readers > 1) cuda::check(api_.mark(context(r)), "wait for another device");
      }
      for (size_t r = 0; r < readers; ++r) {
        for (size_t other = 0; other < ranks_.size(); ++other) {
          if (other != r) follow(r, other);
        }
      }
    }
    for (size_t r = 0; r < readers; ++r) ranks_[r]->executor.run(ranks_[r]->plan.steps[i], call);
  }
}

Graph* Planned::capture(const Executor::Call& call) {
  const Value output = ranks_[0]->of.program.output;
  Graph* graph = nullptr;
  cuda::check(api_.begin(context(0)), "capture a graph");
  others_follow_first();
  steps(call);
  first_follows_others();
  const int64_t stride = first().stride(output);
  cuda::check(api_.deliver(context(0), {first().at(output), rows_.data(), stride, call.n,
                                        program_.shape(program_.output).size(), bad_}),
              "copy logits");
  cuda::check(api_.end(context(0), &graph), "capture a graph");
  return graph;
}

void Planned::run(const Rows& rows) {
  others_follow_first();
  Executor::Call call;
  for (const auto& rank : ranks_) call = rank->executor.upload(rows);
  delivered_ = 0;
  if (!together_ || call.wanted == 0) {
    steps(call);
    first_follows_others();
    return;
  }
  const int64_t most = plan().max_tokens * row_stride(program_.shape(program_.output).size());
  const std::span<float> host = rows_.floats(api_, context(0), most + 1);  // graphs hold where it lies
  bad_ = reinterpret_cast<uint32_t*>(host.data() + most), *bad_ = 0;
  call.chunks = std::min(int(std::bit_ceil(unsigned(call.chunks))), first().max_chunks());
  first_follows_others();  // the graph begins behind all uploads
  Graph*& graph = graphs_[call];
  if (!graph) graph = capture(call);
  cuda::check(api_.run(context(0), graph), "run a graph");
  delivered_ = call.n;
}

std::span<const float> Planned::rows(Value v, int rows) {
  const int64_t stride = row_stride(program_.shape(v).size());
  if (v == program_.output && rows <= delivered_) {
    cuda::check(api_.wait(context(0)), "run the model");
    return rows_.floats(api_, context(0), rows * stride);
  }
  const Value here = ranks_[0]->of.whole[size_t(v)];
  const float* from = here < 0 ? nullptr : first().at(here);
  PLUMB_CHECK(from);
  const std::span<float> out = rows_.floats(api_, context(0), rows * stride);
  cuda::check(api_.download(context(0), out.data(), from, int64_t(out.size()) * 4), "run the model");
  return out;
}

}  // namespace plumb::cuda
