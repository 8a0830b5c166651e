#include "engine/model.h"

#include "models/models.h"

namespace plumb {

Model::Model(const std::string& path, ModelOptions options)
    : options_(std::move(options)),
      file_(Gguf::open(path)),
      program_(build_program(file_)),
      pool_(std::make_unique<Pool>(options_.threads)) {}

const Tokenizer& Model::tokenizer() const {
  if (!tokenizer_) tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::load(file_));
  return *tokenizer_;
}

const CpuWeights& Model::weights() const {
  if (!weights_) {
    weights_ = std::make_unique<CpuWeights>(program_, *pool_,
                                            [this](double share) { options_.progress("loading", share); });
    options_.progress("loading", 1);
  }
  return *weights_;
}

}  // namespace plumb
