// Several sequences of a model on a device that share every pass over the weights: a plan for rows that all
// have a sequence of their own, and one for everything else.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "cuda/backend.h"
#include "cuda/loaded.h"

namespace plumb {

struct CudaSequences::State {
  State(const Program& program_, std::shared_ptr<const CudaModel> model_, const CudaOptions& options,
        int count, int max_wanted)
      : program(program_),
        model(std::move(model_)),
        ranks(ranks_of(program_, model->state(), options, count)),
        pages(page_sets(ranks)),
        most_together(std::min({count, cuda::kFewTokens, options.max_tokens})),
        together(program_, cuda::plan_options(options, most_together, most_together), states(), true),
        many(program_, cuda::plan_options(options, options.max_tokens, max_wanted), states(), false) {}

  // What the sequences have on one device.
  struct Rank {
    Rank(const Program& p, const cuda::Api& api, const CudaModel::State::Rank& on, const CudaOptions& o,
         int count)
        : layout(p, o.kv_f32),
          pages(std::make_shared<cuda::PagePool>(api, on.device.context, layout.bytes)),
          tables(api, on.device.context, count, o.n_ctx),
          state{api, on.device.context, on.weights, o.n_ctx, o.kv_f32, o.f32, o.f16, layout, tables} {}
    cuda::PageLayout layout;
    std::shared_ptr<cuda::PagePool> pages;
    cuda::PageTables tables;
    cuda::SequenceState state;
  };
  using Ranks = std::vector<std::unique_ptr<Rank>>;

  static Ranks ranks_of(const Program& program, const CudaModel::State& on, const CudaOptions& options,
                        int count) {
    const std::vector<Program> programs = cuda::programs_of_ranks(program, options);
    PLUMB_CHECK(programs.size() == on.ranks.size());
    Ranks ranks;
    for (size_t r = 0; r < programs.size(); ++r)
      ranks.push_back(std::make_unique<Rank>(programs[r], on.api, *on.ranks[r], options, count));
    return ranks;
  }
  static std::shared_ptr<cuda::PageSets> page_sets(const Ranks& ranks) {
    std::vector<std::shared_ptr<cuda::PagePool>> pools;
    for (const auto& r : ranks) pools.push_back(r->pages);
    return std::make_shared<cuda::PageSets>(std::move(pools));
  }
  std::vector<const cuda::SequenceState*> states() const {
    std::vector<const cuda::SequenceState*> all;
    for (const auto& r : ranks) all.push_back(&r->state);
    return all;
  }

  const Program& program;
  std::shared_ptr<const CudaModel> model;
  Ranks ranks;
  std::shared_ptr<cuda::PageSets> pages;
  int most_together;
  cuda::Planned together, many;
  std::vector<std::span<const float>> rows;  // of the last run
};

CudaSequences::CudaSequences(const Program& program, std::shared_ptr<const CudaModel> model,
                             const CudaOptions& options, int count, int max_wanted)
    : state_(std::make_unique<State>(program, std::move(model), options, count, max_wanted)) {}

CudaSequences::~CudaSequences() = default;

int64_t CudaSequences::page_bytes() const { return state_->pages->page_bytes(); }
std::shared_ptr<uint8_t> CudaSequences::make_page() { return state_->pages->make(); }
std::shared_ptr<uint8_t> CudaSequences::copy_page(const uint8_t* page) { return state_->pages->copy(page); }
void CudaSequences::set_pages(int sequence, std::span<uint8_t* const> pages) {
  State& s = *state_;
  std::vector<uint8_t*> of_rank(pages.begin(), pages.end());
  for (size_t r = 0; r < s.ranks.size(); ++r) {
    for (size_t i = 0; i < pages.size(); ++i) of_rank[i] = s.pages->of(r, pages[i]);
    s.ranks[r]->tables.set(sequence, of_rank);
  }
}
const Plan& CudaSequences::plan() const { return state_->many.plan(); }

void CudaSequences::run(const Batch& batch) {
  State& s = *state_;
  const std::set<int> distinct(batch.sequences.begin(), batch.sequences.end());
  const bool together = int(batch.tokens.size()) <= s.most_together && distinct.size() == batch.tokens.size();
  cuda::Planned& planned = together ? s.together : s.many;
  planned.run({batch.tokens, batch.positions, batch.sequences, batch.wanted});
  s.rows.clear();
  if (batch.wanted.empty()) return;
  const Value output = s.program.output;
  const size_t size = size_t(s.program.shape(output).size()), stride = size_t(row_stride(int64_t(size)));
  const std::span<const float> all =
      planned.rows(output, int(together ? batch.tokens.size() : batch.wanted.size()));
  const bool finite = planned.finite();
  for (size_t i = 0; i < batch.wanted.size(); ++i) {
    const size_t row = size_t(batch.wanted[i]);
    s.rows.push_back(all.subspan((together ? row : i) * stride, size));
    if (!finite) cuda::check_finite(s.rows.back(), batch.positions[row]);
  }
}

std::span<const float> CudaSequences::row(int i) const { return state_->rows[size_t(i)]; }

}  // namespace plumb
