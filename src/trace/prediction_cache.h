// Predictions of hypotheses kept between diagnoses: whoever mends an engine and prints again waits for a
// second, not for a minute.
#pragma once

#include <deque>
#include <map>

#include "base/file.h"
#include "trace/predict.h"

namespace plumb::trace {

class PredictionCache {
 public:
  /// One file of `folder` for this model, these tokens and these groups; an empty folder: memory alone. What
  /// cannot be read, or was not written whole, counts as absent.
  PredictionCache(const std::string& folder, const std::string& model, const Evidence& evidence);

  /// One that goes to that layer at least.
  std::optional<Prediction> find(const std::string& key, int depth) const;
  void keep(const std::string& key, int depth, const Prediction& prediction);

  /// Adds what is new to the file, and removes the oldest files of too many. Failing to is no error.
  void save();

 private:
  struct Entry {
    int depth;
    std::string_view record;  // as in the file
  };

  void read_all();

  std::string path_;
  size_t groups_;
  MappedFile file_;
  size_t good_ = 0;                // bytes of the file, up to the end of the last whole record
  std::deque<std::string> fresh_;  // records that are not in it
  size_t fresh_bytes_ = 0;
  std::map<std::string, Entry> kept_;
};

}  // namespace plumb::trace
