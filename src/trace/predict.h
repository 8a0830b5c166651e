// What a hypothesis says that the foreign engine should have printed: its Variant run on the foreign tokens.
#pragma once

#include "trace/observe.h"
#include "trace/variant.h"

namespace plumb::trace {

/// Of one group: its quantities; the root mean square of its rows; and where the group is the top of a row,
/// the largest elements that it does not hold.
struct PredictedGroup {
  bool computed = false;  // else not asked for
  std::vector<double> x;  // NaN: the Variant has no such value
  double size = 0;
  std::vector<double> others;   // descending
  std::vector<double> margins;  // of ids that were chosen: their logit less the largest other one
};

using Prediction = std::vector<PredictedGroup>;  // by group

struct PredictRequest {
  const Variant& variant;
  const Evidence& evidence;
  const Model& model;       // for its tokenizer, where a Variant changes what becomes of text
  int depth = 0;            // only groups up to this layer; n_layer: all
  int64_t ids = INT64_MAX;  // of those that were chosen in a run, only so many
  size_t runs = SIZE_MAX;   // only so many
  Arithmetic profile = {};
  DecodedWeights* decoded = nullptr;
  std::atomic<bool>* cancel = nullptr;
};

/// In f32. Throws Error "run.cancelled".
Prediction predict(const PredictRequest& request, Pool& pool);

/// The ids that the Variant's engine feeds where a right one feeds `tokens`; `calls` follow.
void change_tokens(const Variant& variant, const Model& model, std::vector<int>& tokens,
                   std::vector<int>& calls);

/// What a group shows of a row beyond its quantities: where its top is printed, the largest others; where
/// elements are known up to a constant, all of them less the mean of those printed.
void complete_row(const Observed& group, std::span<const double> row, PredictedGroup& out);

/// Whether a group is computed up to that layer.
bool within(const Observed& group, int depth, int n_layer);

}  // namespace plumb::trace
