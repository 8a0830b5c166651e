// Embeddings are computed between the passes of the scheduler, a piece of a text at a time, so that answers
// under way go on.
#pragma once

#include <atomic>
#include <memory>

#include "engine/embedding.h"
#include "engine/scheduler.h"
#include "server/fields.h"
#include "server/http.h"

namespace plumb::server {

struct Call;
struct Service;

class Embedder {
 public:
  /// At most `most` requests are under way at a time. All references must outlive this and the scheduler's
  /// jobs.
  Embedder(const Model& model, Scheduler& scheduler, const RunnerOptions& runner, Pooling pooling, int most)
      : model_(model), scheduler_(scheduler), runner_(runner), pooling_(pooling), most_(most) {}

  using Done = std::function<void(std::vector<std::vector<float>>, std::exception_ptr)>;

  /// Embeds the texts and calls `done` on the scheduler's thread, unless `gone` was set before. Throws Error
  /// "context.full", "queue.full".
  void submit(std::vector<std::vector<int>> texts, std::shared_ptr<std::atomic<bool>> gone, Done done);

 private:
  class Job;

  const Model& model_;
  Scheduler& scheduler_;
  const RunnerOptions runner_;
  const Pooling pooling_;
  const int most_;
  std::atomic<int> open_ = 0;
};

/// The ids of `input`: a text, ids, or an array of at most 64 of either.
std::vector<std::vector<int>> read_texts(Fields& fields, const Service& service);

/// POST /v1/embeddings.
void handle_embeddings(Call& call);

}  // namespace plumb::server
