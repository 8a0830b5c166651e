#include "engine/passes.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "engine/on_device.h"

namespace plumb {
namespace {

class CpuPasses : public Passes {
 public:
  CpuPasses(const Model& model, const RunnerOptions& options, int max_wanted)
      : model_(model),
        kv_(options.kv),
        plan_(make_plan(model.program(), {.max_tokens = options.n_ubatch,
                                          .max_wanted = max_wanted,
                                          .fuse = options.fuse,
                                          .rounding = options.rounding})),
        executor_(plan_, model.weights(), model.isa(), model.pool()) {}

 private:
  KvCache new_cache() const override { return KvCache(model_.program(), kv_); }
  void run(const Pass& p) override { executor_.run({p.tokens, p.positions, p.caches, p.wanted}); }
  std::span<const float> row(int i) const override { return executor_.row(model_.program().output, i); }
  const Plan& plan() const override { return plan_; }
  void time_steps(std::vector<StepTime>* times) override { executor_.time_steps(times); }

  const Model& model_;
  const KvTypes kv_;
  const Plan plan_;
  CpuExecutor executor_;
};

class DevicePages : public KvPages {
 public:
  explicit DevicePages(CudaSequences& sequences) : sequences_(sequences) {}
  int64_t page_bytes() const override { return sequences_.page_bytes(); }
  std::shared_ptr<uint8_t> make() override { return sequences_.make_page(); }
  std::shared_ptr<uint8_t> copy(const uint8_t* page) override { return sequences_.copy_page(page); }

 private:
  CudaSequences& sequences_;
};

class CudaPasses : public Passes {
 public:
  CudaPasses(const Model& model, const RunnerOptions& options, int count, int max_wanted)
      : sequences_(model.program(), whole_model_on_device(model, options), cuda_options(model, options),
                   count, max_wanted),
        pages_(std::make_shared<DevicePages>(sequences_)) {}

 private:
  KvCache new_cache() const override { return KvCache(pages_); }
  void run(const Pass& p) override {
    for (size_t i = 0; i < p.sequences.size(); ++i) {
      if (i > 0 && p.sequences[i] == p.sequences[i - 1]) continue;
      sequences_.set_pages(p.sequences[i], p.caches[i]->pages());
    }
    sequences_.run({p.tokens, p.positions, p.sequences, p.wanted});
  }
  std::span<const float> row(int i) const override { return sequences_.row(i); }
  const Plan& plan() const override { return sequences_.plan(); }
  void time_steps(std::vector<StepTime>*) override {}

  CudaSequences sequences_;
  std::shared_ptr<DevicePages> pages_;
};

}  // namespace

std::unique_ptr<Passes> Passes::make(const Model& model, const RunnerOptions& options, int count,
                                     int max_wanted) {
  if (on_device(options)) {
    try {
      return std::make_unique<CudaPasses>(model, options, count, max_wanted);
    } catch (const Error& e) {
      if (!may_fall_back(options, e)) throw;
      return std::make_unique<CpuPasses>(model, on_cpu_instead(options, e), max_wanted);
    }
  }
  return std::make_unique<CpuPasses>(model, options, max_wanted);
}

}  // namespace plumb
