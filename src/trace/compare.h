// How far two recordings of one value lie apart.
#pragma once

#include <functional>
#include <map>

#include "engine/model.h"
#include "trace/trace.h"

namespace plumb::trace {

/// Theirs against ours. Errors are relative: |theirs - ours| / |ours| of each token, root mean square over
/// the tokens, so that a token of large size does not hide the others.
struct Difference {
  std::string value;
  std::string from;    // "full", "sketch" or "stats": what was compared
  int64_t tokens = 0;  // rows compared
  int64_t elements = 0;
  double error = 0;
  double print = 0;  // the error that printing alone may have caused
  double cosine = 1;
  double scale = 1;                                  // ours is about scale times theirs
  int64_t token = -1, index = -1;                    // of the largest difference
  double theirs = 0, ours = 0;                       // there
  double ulps = 0;                                   // there, in f32
  std::vector<std::pair<int64_t, double>> by_token;  // position and error
  std::vector<double> by_head;
  std::string gauge;   // what was undone before comparing
  bool finite = true;  // theirs has neither NaN nor infinity where ours has none
  double floor = 0;    // error that rounding explains
  double score = 0;    // error over what floor and printing allow; above 1: too much
};

/// Undoes a difference of representation in a row of theirs.
struct Gauge {
  const char* name;
  std::function<void(std::span<double> theirs, std::span<const double> ours)> undo;
};

/// Where each row of a trace's values lies.
class Rows {
 public:
  struct At {
    const Record* record;
    int64_t row;
    int64_t offset = 0, length = 0;  // a part of the row; length 0: all of it
    int64_t size() const { return length > 0 ? length : record->row_size(); }
  };

  /// Throws Error "trace.overlap" if two records hold the same row of one value.
  explicit Rows(const Trace& trace);

  /// Rows of full records by position; empty when there are none.
  const std::map<int64_t, At>& full(const std::string& value) const;
  /// Records that hold no elements, of that value.
  const std::vector<const Record*>& summaries(const std::string& value) const;
  std::vector<double> row(const At& at) const {
    std::vector<double> all = trace_.rows(*at.record, at.row, 1);
    if (at.length == 0) return all;
    return {all.begin() + at.offset, all.begin() + at.offset + at.length};
  }
  /// Rows of `fused` become those of several values of these sizes, side by side, unless sizes do not add up
  /// or a value was recorded by itself.
  void split(const std::string& fused, const std::vector<std::pair<std::string, int64_t>>& parts);
  const Trace& trace() const { return trace_; }

  /// The difference of representation that was found at a value; null: none.
  void found(const std::string& value, Gauge gauge) { gauges_[value] = std::move(gauge); }
  const Gauge* gauge(const std::string& value) const {
    const auto at = gauges_.find(value);
    return at == gauges_.end() ? nullptr : &at->second;
  }

 private:
  const Trace& trace_;
  std::map<std::string, std::map<int64_t, At>> full_;
  std::map<std::string, std::vector<const Record*>> summaries_;
  std::map<std::string, Gauge> gauges_;
};

/// Adds up rows into a Difference.
class Comparison {
 public:
  Comparison(std::string value, int64_t heads);
  void add(int64_t position, std::span<const double> theirs, std::span<const double> ours);
  Difference result() const;

 private:
  Difference d_;
  double squares_ = 0, dot_ = 0, theirs_ = 0, ours_ = 0, largest_ = -1;
  std::vector<double> head_difference_, head_ours_;
};

/// The differences of representation that may apply to a value; with a model also those that need its
/// weights.
class Gauges {
 public:
  explicit Gauges(std::string arch, const Model* model = nullptr) : arch_(std::move(arch)), model_(model) {}
  /// `dim` is that of a head.
  std::vector<Gauge> of(const std::string& value, int64_t heads, int64_t dim) const;
  /// Tells the rows which of them the comparison has undone, so that replay undoes it as well.
  void remember(const Difference& compared, int64_t heads, int64_t dim, Rows& rows) const;
  const Model* model() const { return model_; }

 private:
  std::string arch_;
  const Model* model_;
};

/// The values side by side in a fused projection's name (blk.L.attn_qkv, blk.L.ffn_gate_up); else none.
std::vector<std::string> parts_of_fused(const std::string& value);

/// Gives the parts of fused projections (attn_qkv, ffn_gate_up) their own names.
void split_fused(Rows& rows, const Program& program);

/// Compares the rows that both have in full, under the gauge that makes them most alike if any is needed.
std::optional<Difference> compare_full(const Rows& theirs, const Rows& ours, const std::string& value,
                                       const Gauges& gauges, int64_t positions);

/// Compares what summaries of theirs say with ours.
std::optional<Difference> compare_summaries(const Rows& theirs, const Rows& ours, const std::string& value,
                                            int64_t positions);

}  // namespace plumb::trace
