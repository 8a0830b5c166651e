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
        api(model->state().device.api),
        context(model->state().device.context),
        layout(program_, options.kv_f32),
        pages(std::make_shared<cuda::PagePool>(api, context, layout.bytes)),
        tables(api, context, count, options.n_ctx),
        state{api,           context,        model->state().weights,
              options.n_ctx, options.kv_f32, options.f32,
              options.f16,   layout,         tables},
        most_together(std::min({count, cuda::kFewTokens, options.max_tokens})),
        together(program_, cuda::plan_options(options, most_together, most_together), state, true),
        many(program_, cuda::plan_options(options, options.max_tokens, max_wanted), state, false) {}

  const Program& program;
  std::shared_ptr<const CudaModel> model;
  const cuda::Api& api;
  cuda::Context* context;
  cuda::PageLayout layout;
  std::shared_ptr<cuda::PagePool> pages;
  cuda::PageTables tables;
  cuda::SequenceState state;
  int most_together;
  cuda::Planned together, many;
  std::vector<std::span<const float>> rows;  // of the last run
};

CudaSequences::CudaSequences(const Program& program, std::shared_ptr<const CudaModel> model,
                             const CudaOptions& options, int count, int max_wanted)
    : state_(std::make_unique<State>(program, std::move(model), options, count, max_wanted)) {}

CudaSequences::~CudaSequences() = default;

int64_t CudaSequences::page_bytes() const { return state_->layout.bytes; }
std::shared_ptr<uint8_t> CudaSequences::make_page() { return state_->pages->make(); }
std::shared_ptr<uint8_t> CudaSequences::copy_page(const uint8_t* page) { return state_->pages->copy(page); }
void CudaSequences::set_pages(int sequence, std::span<uint8_t* const> pages) {
  state_->tables.set(sequence, pages);
}
const Plan& CudaSequences::plan() const { return state_->many.plan; }

void CudaSequences::run(const Batch& batch) {
  State& s = *state_;
  const std::set<int> distinct(batch.sequences.begin(), batch.sequences.end());
  const bool together = int(batch.tokens.size()) <= s.most_together && distinct.size() == batch.tokens.size();
  cuda::Executor& executor = (together ? s.together : s.many).executor;
  executor.run({batch.tokens, batch.positions, batch.sequences, batch.wanted});
  s.rows.clear();
  if (batch.wanted.empty()) return;
  const Value output = s.program.output;
  const size_t size = size_t(s.program.shape(output).size()), stride = size_t(row_stride(int64_t(size)));
  const std::span<const float> all =
      executor.rows(output, int(together ? batch.tokens.size() : batch.wanted.size()));
  const bool finite = executor.finite();
  for (size_t i = 0; i < batch.wanted.size(); ++i) {
    const size_t row = size_t(batch.wanted[i]);
    s.rows.push_back(all.subspan((together ? row : i) * stride, size));
    if (!finite) cuda::check_finite(s.rows.back(), batch.positions[row]);
  }
}

std::span<const float> CudaSequences::row(int i) const { return state_->rows[size_t(i)]; }

}  // namespace plumb
