// Values inside attention, which no node of a Program has: attn.kq, attn.probs and attn.kqv
// (docs/trace-format.md), compared and replayed row by row, per head.
//
// A row of theirs may hold keys that nobody sees: padding, later tokens, those before a window. Of kq only
// visible keys count; of probs what falls on others is one more element per head, which should be 0.
#pragma once

#include "program/reference.h"
#include "trace/replay.h"

namespace plumb::trace {

struct InnerValue {
  std::string attention;  // the node's name
  Inner part;
};

/// blk.3.attn.probs is probs of blk.3.attn; none for other names.
std::optional<InnerValue> inner_value(std::string_view name);
std::string inner_name(const std::string& attention, Inner part);
/// Whether rows of a value grow with the context.
bool is_by_key(std::string_view name);

/// Number formats of what products read and of what is written down.
struct InnerFormats {
  double (*in)(double) = nullptr;
  double (*out)(double) = nullptr;
};

/// One attention computed from recorded rows of its inputs, of the tokens below `positions`.
class AttentionRows {
 public:
  AttentionRows(const Program& program, Value attention, const Rows& rows, int64_t positions,
                InnerFormats formats = {});

  /// Whether the query and all keys up to it were recorded.
  bool has(int64_t position) const { return position < keys_ && q_->count(position) > 0; }
  std::vector<double> kq(int64_t position) const;  // [n_head, position + 1]
  /// [n_head, position + 2]; the last of a head is the weight of keys that it must not see.
  std::vector<double> probs(std::span<const double> kq, int64_t position) const;
  /// [n_head, dim] of weights [n_head, any number of keys], those of hidden keys included.
  std::vector<double> kqv(std::span<const double> probs) const;

  int heads() const { return q_shape_.heads; }
  int window() const { return op_.window; }

 private:
  int kv_head(int h) const;
  std::vector<double> input(const Value v, int64_t position) const;

  const Program& p_;
  const Rows& rows_;
  const Attention& op_;
  Value query_;
  Shape q_shape_, kv_shape_;
  const Rows::Positions* q_;
  int64_t keys_ = 0;
  std::vector<double> k_, v_;  // [keys_, kv size]
  InnerFormats formats_;
};

/// What was recorded of an inner value for a token, as AttentionRows lays it out; empty if nothing was.
std::vector<double> recorded_inner(const Rows& rows, const std::string& name, Inner part, int64_t position,
                                   int window);

/// Theirs against ours: recorded, or computed from our recorded inputs if there is a program.
std::vector<Difference> compare_inner(const Program* program, const Rows& theirs, const Rows& ours,
                                      const std::string& attention, int64_t positions);

/// Adds the parts of each attention that were recorded, before the attention as a whole.
void replay_inner(const Model& model, const Rows& rows, int64_t positions, std::vector<Replayed>& operations);

}  // namespace plumb::trace
