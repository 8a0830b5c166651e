// Predictions of hypotheses kept between diagnoses of the same prompt and the same kind of evidence: whoever
// mends an engine and prints again waits for a second, not for a minute.
#pragma once

#include "trace/predict.h"

namespace plumb::trace {

class PredictionCache {
 public:
  /// One file of `folder` for this model, these tokens and these groups; an empty folder: memory alone. What
  /// cannot be read, or was not written whole, counts as absent.
  PredictionCache(const std::string& folder, const std::string& model, const Evidence& evidence);

  const Prediction* find(const std::string& key) const;
  void keep(const std::string& key, const Prediction& prediction);

  /// Writes the file, if anything is new, and removes the oldest of many. Failing to is no error.
  void save() const;

 private:
  std::string path_;
  std::map<std::string, Prediction> kept_;
  size_t bytes_ = 0;
  bool changed_ = false;
};

}  // namespace plumb::trace
