#include "engine/model.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/file.h"
#include "engine/cuda_hybrid.h"
#include "engine/trial.h"
#include "models/models.h"
#include "plan/split.h"

namespace plumb {
namespace {

// Small models are packed in no time.
constexpr int64_t kWorthKeeping = 16 << 20;

// Where the packed weights of a file are kept: by its name and a hash of its path, so that two of one name do
// not take turns. What they are made of is checked when they are read.
PackedCache cache_of(const Gguf& file, const std::string& folder, const std::string& rank) {
  namespace fs = std::filesystem;
  PackedCache cache{.source_is_map = true};
  std::error_code error;
  if (folder.empty() || file.file_bytes() < kWorthKeeping) return cache;
  fs::create_directories(folder, error);
  if (error) return cache;
  const fs::path path = fs::weakly_canonical(file.path(), error);
  std::string stamp;
  for (const std::string& part : file.files()) {
    stamp += fmt::format("{} {} ", fs::file_size(part, error),
                         fs::last_write_time(part, error).time_since_epoch().count());
  }
  cache.path = (fs::path(folder) /
                fmt::format("{}-{:016x}{}.r16", path.filename().string(), checksum(path.string()), rank))
                   .string();
  cache.source = path.string();
  cache.stamp = checksum(stamp);
  return cache;
}

}  // namespace

Model::Model(const std::string& path, ModelOptions options)
    : options_(std::move(options)),
      file_(std::make_shared<const Gguf>(Gguf::open(path))),
      program_(build_program(*file_)),
      pool_(std::make_unique<Pool>(options_.threads)) {}

Model::Model(const Model& shared, int threads)
    : options_(shared.options_),
      file_(shared.file_),
      program_(shared.program_),
      part_(shared.part_),
      pool_(std::make_unique<Pool>(threads)),
      weights_(shared.weights_) {
  options_.threads = threads, options_.progress = [](const char*, double) {};
}

void Model::run_as_rank(int rank, int ranks, const std::set<Value>& wanted) {
  run_as(rank_program(program_, rank, ranks, wanted).program);
  if (ranks > 1) part_ = fmt::format("-{}of{}", rank + 1, ranks);
}

const Tokenizer& Model::tokenizer() const {
  if (!tokenizer_) {
    tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::load(*file_));
    for (const std::span<const uint8_t> part : file_->contents()) forget_pages(part);
  }
  return *tokenizer_;
}

const CpuWeights& Model::weights() const {
  if (!weights_) {
    weights_ = std::make_shared<CpuWeights>(program_, *pool_, cache_of(*file_, options_.packed_folder, part_),
                                            [this](double share) { options_.progress("loading", share); });
    options_.progress("loading", 1);
  }
  return *weights_;
}

std::shared_ptr<const CudaModel> Model::on_device(const CudaOptions& options) const {
  std::shared_ptr<const CudaModel> model = devices_ == options.devices ? on_device_.lock() : nullptr;
  if (model) return model;
  check_fits(program_, options, -1);
  model = std::make_shared<CudaModel>(program_, *pool_, options,
                                      [this](double share) { options_.progress("loading", share); });
  if (options.self_test) self_test(program_, *pool_, options_.isa, model, options);
  on_device_ = model, devices_ = options.devices;
  return model;
}

}  // namespace plumb
