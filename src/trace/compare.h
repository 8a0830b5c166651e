// How far two recordings of one value lie apart.
#pragma once

#include <algorithm>
#include <functional>
#include <map>

#include "base/error.h"
#include "engine/model.h"
#include "trace/trace.h"

namespace plumb::trace {

/// Numbers this small are zero to the kernels of any engine: the smallest f32 of full precision is 2^-126,
/// and rounding takes a block of less than 2^-100 as zeros (docs/numerics.md). Errors are relative to no
/// less.
constexpr double kNothing = 0x1p-100;

/// How far one statistic of theirs lies from ours, in units of the value's rms (of the statistic where that
/// is larger); all elements together where it is none.
struct StatError {
  std::optional<Stat> stat;
  double error, print;
};

/// Theirs against ours. Errors are relative: |theirs - ours| / |ours| of each token, root mean square over
/// the tokens, so that a token of large size does not hide the others.
struct Difference {
  std::string value;
  std::string from;    // "full", "sketch" or "stats": what was compared
  int64_t tokens = 0;  // rows compared
  int64_t elements = 0;
  double error = 0;
  double print = 0;              // the error that printing alone may have caused
  std::vector<StatError> parts;  // of statistics
  double cosine = 1;
  double scale = 1;                                  // ours is about scale times theirs
  int64_t token = -1, index = -1;                    // of the largest difference
  double theirs = 0, ours = 0;                       // there
  double ulps = 0;                                   // there, in f32
  std::vector<std::pair<int64_t, double>> by_token;  // position and error
  std::vector<double> by_head;
  std::string gauge;   // what was undone before comparing
  bool finite = true;  // NaN and infinities are where the other has some too
  double floor = 0;    // error that rounding explains
  double score = 0;    // error over what floor and printing allow; above 1: too much
  double noise = 0;    // largest error of a statistic over what rounding does to that one
};

/// Undoes a difference of representation in a row of theirs.
struct Gauge {
  const char* name;
  std::function<void(std::span<double> theirs, std::span<const double> ours)> undo;
};

/// A map from positions in one array: a trace of 10 GB has millions of rows.
template <class T>
class ByPosition {
 public:
  using Entry = std::pair<int64_t, T>;

  void append(int64_t position, const T& value) { entries_.emplace_back(position, value); }
  /// Once all are there: sorts them. Of several at one position the first stays; returns the first such
  /// position, or -1.
  int64_t settle() {
    const auto before = [](const Entry& a, const Entry& b) { return a.first < b.first; };
    if (!std::is_sorted(entries_.begin(), entries_.end(), before))
      std::stable_sort(entries_.begin(), entries_.end(), before);
    const auto same = [](const Entry& a, const Entry& b) { return a.first == b.first; };
    const auto twice = std::adjacent_find(entries_.begin(), entries_.end(), same);
    if (twice == entries_.end()) return -1;
    const int64_t position = twice->first;
    entries_.erase(std::unique(entries_.begin(), entries_.end(), same), entries_.end());
    return position;
  }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }
  auto lower_bound(int64_t position) const {
    return std::lower_bound(begin(), end(), position,
                            [](const Entry& e, int64_t wanted) { return e.first < wanted; });
  }
  auto find(int64_t position) const {
    const auto at = lower_bound(position);
    return at != end() && at->first == position ? at : end();
  }
  size_t count(int64_t position) const { return find(position) != end(); }
  const T& at(int64_t position) const {
    PLUMB_CHECK(count(position) > 0);
    return find(position)->second;
  }
  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  const Entry& first() const { return entries_.front(); }
  const Entry& last() const { return entries_.back(); }

 private:
  std::vector<Entry> entries_;
};

/// Where each row of a trace's values lies.
class Rows {
 public:
  struct At {
    const Record* record;
    int64_t row;
    int32_t offset = 0, length = 0;  // a part of the row; length 0: all of it
    int32_t piece = 0, period = 0;   // of so many elements each, so far apart; piece 0: in one
    int64_t size() const { return length > 0 ? length : record->row_size(); }
  };
  using Positions = ByPosition<At>;
  /// A value within the rows of another.
  struct Part {
    std::string value;
    int32_t offset, length, piece = 0, period = 0;
  };

  /// Throws Error "trace.overlap" if two records hold the same row of one value.
  explicit Rows(const Trace& trace);

  /// Rows of full records by position; empty when there are none.
  const Positions& full(const std::string& value) const;
  /// Records that hold no elements, of that value.
  const std::vector<const Record*>& summaries(const std::string& value) const;
  std::vector<double> row(const At& at) const;
  /// Rows of `fused` become those of several values, unless sizes do not add up or a value was recorded by
  /// itself.
  void split(const std::string& fused, const std::vector<Part>& parts);
  const Trace& trace() const { return trace_; }

  /// The difference of representation that was found at a value; null: none.
  void found(const std::string& value, Gauge gauge) { gauges_[value] = std::move(gauge); }
  const Gauge* gauge(const std::string& value) const {
    const auto at = gauges_.find(value);
    return at == gauges_.end() ? nullptr : &at->second;
  }

 private:
  const Trace& trace_;
  std::map<std::string, Positions> full_;
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

/// The tag of rows of attn_qkv in which each key-value head follows its query heads, and its values follow.
inline constexpr const char* kQkvByHead = "qkv_by_head";

/// Gives the parts of fused projections (attn_qkv, ffn_gate_up) their own names. by_head(blk): whether
/// blk.attn_qkv has that order.
void split_fused(Rows& rows, const Program& program,
                 const std::function<bool(const std::string& blk)>& by_head);

/// Whether theirs was tagged so, or its values are ours in that order.
bool is_qkv_by_head(const Rows& theirs, const Rows& ours, const Program& program, const std::string& blk);

/// Compares the rows that both have in full, under the gauge that makes them most alike if any is needed.
std::optional<Difference> compare_full(const Rows& theirs, const Rows& ours, const std::string& value,
                                       const Gauges& gauges, int64_t positions);

/// The statistics of our rows that `like` has; none if a row is missing.
std::optional<Record> summary_of(const Rows& ours, const std::string& value, const Record& like);
std::vector<StatError> compare_stats(const Stats& theirs, const Stats& ours);

/// Compares what summaries of theirs say with ours.
std::optional<Difference> compare_summaries(const Rows& theirs, const Rows& ours, const std::string& value,
                                            int64_t positions);

}  // namespace plumb::trace
