// One call of an Executor: its rows to the device, the steps or the graph that they are, and outputs back. A
// graph ends by writing logits to the host's memory itself and looking for infinities and NaN on the way: a
// copy behind the graph and the host's own look cost 20 us a token.
#include <algorithm>
#include <bit>

#include "base/error.h"
#include "cuda/executor.h"

namespace plumb::cuda {

Executor::Call Executor::upload(const Rows& rows) {
  const size_t n = rows.tokens.size(), max = size_t(plan_.max_tokens);
  PLUMB_CHECK(n >= 1 && n <= max && rows.positions.size() == n && rows.wanted.size() <= n);
  std::vector<int> all(size_t(kIds) * max);
  const auto put = [&](Ids part, std::span<const int> from) {
    std::copy(from.begin(), from.end(), all.begin() + int64_t(size_t(part) * max));
  };
  put(kTokens, rows.tokens), put(kPositions, rows.positions), put(kSequences, rows.sequences);
  put(kWanted, rows.wanted);
  Call call{.n = int(n), .wanted = int(rows.wanted.size())};
  int furthest = 0;
  for (size_t i = 0; i < n; ++i) {
    PLUMB_CHECK(rows.positions[i] < state_.n_ctx);
    furthest = std::max(furthest, rows.positions[i]);
    if (i == 0 || (!rows.sequences.empty() && rows.sequences[i] != rows.sequences[i - 1])) {
      all[size_t(kRuns) * max + size_t(call.runs++)] = int(i);
    }
    int& length = all[size_t(kRunRows) * max + size_t(call.runs - 1)];
    call.longest = std::max(call.longest, ++length);
  }
  PLUMB_CHECK(!together_ || call.runs == int(n));
  if (observing() || (together_ && call.wanted > 0)) call.wanted = call.n;
  call.chunks = (furthest + kAttentionChunk) / kAttentionChunk;
  cuda::check(api_.upload(state_.context, ids_.data(), all.data(), int64_t(all.size()) * 4),
              "copy token ids");
  return call;
}

void Executor::run(const Rows& rows) {
  Call call = upload(rows);
  delivered_ = 0;
  if (!together_ || call.wanted == 0) return steps(call);
  const int64_t most = plan_.max_tokens * stride(p_.output);
  const std::span<float> host = rows_.floats(api_, state_.context, most + 1);  // graphs hold where it lies
  bad_ = reinterpret_cast<uint32_t*>(host.data() + most), *bad_ = 0;
  call.chunks = std::min(int(std::bit_ceil(unsigned(call.chunks))), max_chunks());
  Graph*& graph = graphs_[call];
  if (!graph) {
    cuda::check(api_.begin(state_.context), "capture a graph");
    steps(call);
    cuda::check(api_.deliver(state_.context, {at(p_.output), host.data(), stride(p_.output), call.n,
                                              int(p_.shape(p_.output).size()), bad_}),
                "copy logits");
    cuda::check(api_.end(state_.context, &graph), "capture a graph");
  }
  cuda::check(api_.run(state_.context, graph), "run a graph");
  delivered_ = call.n;
}

std::span<const float> Executor::rows(Value v, int rows) {
  if (v == p_.output && rows <= delivered_) {
    cuda::check(api_.wait(state_.context), "run the model");
    return rows_.floats(api_, state_.context, rows * stride(v));
  }
  PLUMB_CHECK(at(v));
  const std::span<float> out = rows_.floats(api_, state_.context, rows * stride(v));
  cuda::check(api_.download(state_.context, out.data(), at(v), int64_t(out.size()) * 4), "run the model");
  return out;
}

}  // namespace plumb::cuda
