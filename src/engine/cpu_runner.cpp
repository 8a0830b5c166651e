#include "engine/cpu_runner.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "cpu/executor.h"
#include "engine/draft.h"

namespace plumb {
namespace {

// What rank 0 is about to run; no tokens: nothing more.
struct Order {
  Value observed;
  int tokens, wanted;
  int64_t length;
};

class CpuRunner : public Runner {
 public:
  CpuRunner(const Model& model, const RunnerOptions& options)
      : Runner(model, options), cache_(model.program(), options.kv), lengths_(options.draft) {
    model.weights();  // now, not when the first prompt waits
  }

  /// See follow_first_rank().
  void follow() {
    std::vector<int> tokens, wanted;
    for (;;) {
      Order order{};
      options_.comm->broadcast(&order, sizeof(order));
      if (order.tokens == 0) return;
      tokens.resize(size_t(order.tokens)), wanted.resize(size_t(order.wanted));
      options_.comm->broadcast(tokens.data(), order.tokens * int64_t(sizeof(int)));
      options_.comm->broadcast(wanted.data(), order.wanted * int64_t(sizeof(int)));
      length_ = order.length;
      if (order.observed >= 0) plan_observing(order.observed, options_.n_ubatch);
      run(order.observed, tokens, wanted);
    }
  }

 private:
  struct Planned {
    Plan plan;
    std::unique_ptr<CpuExecutor> executor;
  };

  void bind(Planned& p) const {
    p.executor = std::make_unique<CpuExecutor>(p.plan, model_.weights(), model_.isa(), model_.pool());
  }

  // Other ranks are told what comes.
  void give_order(const Order& order, std::span<const int> tokens, std::span<const int> wanted) const {
    Order sent = order;
    std::vector<int> ids(tokens.begin(), tokens.end()), rows(wanted.begin(), wanted.end());
    options_.comm->broadcast(&sent, sizeof(sent));
    options_.comm->broadcast(ids.data(), sent.tokens * int64_t(sizeof(int)));
    options_.comm->broadcast(rows.data(), sent.wanted * int64_t(sizeof(int)));
  }

  // Decodes, or computes the value that is `observed`, if it is not -1.
  void run(Value observed, std::span<const int> tokens, std::span<const int> wanted) {
    if (options_.comm && options_.comm->rank() == 0)
      give_order({observed, int(tokens.size()), int(wanted.size()), length_}, tokens, wanted);
    CpuExecutor& executor = observed < 0 ? decoder() : *observe_.executor;
    cache_.reserve(length_ + int64_t(tokens.size()));
    std::vector<int> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), int(length_));
    const std::vector<KvCache*> caches(tokens.size(), &cache_);
    const Tap tap = [&](const TapRows& t) {
      const int64_t first = length_ + (t.wanted ? wanted.front() : 0);
      options_.see({t.value, first, t.rows, t.stride, t.data});
    };
    executor.run({tokens, positions, caches, wanted, options_.taps.empty() ? nullptr : &tap, options_.comm});
  }

  CpuExecutor& decoder() {
    if (!decode_.executor) {
      decode_.plan =
          make_plan(model_.program(), {.max_tokens = std::max(options_.n_ubatch, options_.draft + 1),
                                       .max_wanted = options_.draft + 1,
                                       .fuse = options_.fuse,
                                       .rounding = options_.rounding,
                                       .taps = options_.taps});
      bind(decode_);
    }
    return *decode_.executor;
  }

  void plan_observing(Value value, int max_tokens) {
    if (observed_ == value) return;
    observe_ = {};
    observe_.plan = make_plan(model_.program(), {.max_tokens = max_tokens,
                                                 .all_rows = true,
                                                 .fuse = options_.fuse,
                                                 .rounding = options_.rounding,
                                                 .observed = {value}});
    bind(observe_);
    observed_ = value;
  }

  std::span<const float> decode_piece(std::span<const int> tokens, bool last) override {
    if (options_.draft > 0) {
      history_.insert(history_.end(), tokens.begin(), tokens.end());
      if (tokens.size() == 1 && last) return decode_with_draft(tokens[0]);
      drop_draft();
    }
    const int row = int(tokens.size()) - 1;
    run(-1, tokens, last ? std::span(&row, 1) : std::span<const int>());
    if (!last) return {};
    return decode_.executor->row(model_.program().output, 0);
  }

  // One pass computes the logits after `id` and after each drafted id; they wait here until the draft proves
  // right. A wrong one needs no undoing: keys and values of its positions are written again before they are
  // read.
  std::span<const float> decode_with_draft(int id) {
    const Value output = model_.program().output;
    if (checked_ < draft_.size() && draft_[checked_] == id) {
      ++checked_;
      return decode_.executor->row(output, int(checked_));
    }
    drop_draft();
    const size_t from = find_draft(history_), left = size_t(n_ctx_ - length_ - 1);
    const size_t most = from == history_.size() ? 0 : size_t(lengths_.next());
    const size_t count = std::min({most, left, history_.size() - from});
    draft_.assign(history_.begin() + int64_t(from), history_.begin() + int64_t(from + count));
    std::vector<int> tokens = {id}, wanted(count + 1);
    tokens.insert(tokens.end(), draft_.begin(), draft_.end());
    std::iota(wanted.begin(), wanted.end(), 0);
    run(-1, tokens, wanted);
    return decode_.executor->row(output, 0);
  }

  void drop_draft() {
    if (!draft_.empty()) lengths_.result(int(draft_.size()), int(checked_));
    counts_.drafted += int64_t(draft_.size()), counts_.accepted += int64_t(checked_);
    draft_.clear(), checked_ = 0;
  }

  void forget() override {
    drop_draft();
    if (options_.draft > 0) history_.resize(size_t(length_));
  }

  DraftCounts drafts() const override {
    return {counts_.drafted + int64_t(draft_.size()), counts_.accepted + int64_t(checked_)};
  }

  void observe_piece(std::span<const int> tokens, Value value, const See& see) override {
    plan_observing(value, observe_most_);
    run(value, tokens, {});
    for (size_t t = 0; t < tokens.size(); ++t) {
      const std::span<const float> row = observe_.executor->row(value, int(t));
      see(length_ + int64_t(t), std::vector<double>(row.begin(), row.end()));
    }
  }

  KvCache cache_;
  Planned decode_, observe_;
  Value observed_ = -1;
  std::vector<int> history_, draft_;  // all ids; those of the last pass that are not asked for yet
  size_t checked_ = 0;                // ids of the draft that were
  DraftLength lengths_;
  DraftCounts counts_;
};

}  // namespace

std::unique_ptr<Runner> make_cpu_runner(const Model& model, const RunnerOptions& options) {
  return std::make_unique<CpuRunner>(model, options);
}

void follow_first_rank(const Model& model, const RunnerOptions& asked) {
  PLUMB_CHECK(asked.comm && asked.comm->rank() > 0);
  RunnerOptions options = asked;
  options.n_ctx = std::max(options.n_ctx, 1 << 30);  // rank 0 sees to it
  CpuRunner(model, options).follow();
}

void dismiss_ranks(Comm& comm) {
  Order nothing{};
  comm.broadcast(&nothing, sizeof(nothing));
}

}  // namespace plumb
