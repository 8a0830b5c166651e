// Values inside attention: names, what of a recorded row counts, and the parts of one attention by hand.
#include "trace/inner.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>

#include "trace/diff.h"
#include "trace/recorder.h"
#include "trace/test_support.h"

namespace plumb::trace {
namespace {

TEST(InnerNames, AreThoseOfAnAttentionAndNoOthers) {
  const auto probs = inner_value("blk.3.attn.probs");
  ASSERT_TRUE(probs);
  EXPECT_EQ(probs->attention, "blk.3.attn");
  EXPECT_EQ(probs->part, Inner::probs);
  for (const char* other : {"blk.3.attn", "blk.3.attn.k", "blk.3.attn_q.kq", "attn_probs", ".probs", ""})
    EXPECT_FALSE(inner_value(other)) << other;
  EXPECT_TRUE(is_by_key("blk.0.attn.kq"));
  EXPECT_FALSE(is_by_key("blk.0.attn.kqv"));
}

// One head; token 1 sees keys 0 and 1; the record has four.
const char* const kRecorded = R"({"plumb_trace":1,"records":[
  {"value":"blk.0.attn.kq","tokens":[1,1],"shape":[1,1,4],"data":[3,5,7,9]},
  {"value":"blk.0.attn.probs","tokens":[1,1],"shape":[1,1,4],"data":[0.25,0.5,0.125,0.125]},
  {"value":"blk.0.attn.probs","tokens":[2,1],"shape":[1,1,5],"data":[0,0.5,0.5,0,0]}]})";

TEST(RecordedInner, HiddenScoresDoNotCountAndHiddenWeightIsOneMoreElement) {
  const Trace t = Trace::parse(kRecorded, "t");
  const Rows rows(t);
  using Row = std::vector<double>;
  EXPECT_EQ(recorded_inner(rows, "blk.0.attn.kq", Inner::kq, 1, 0), (Row{3, 5}));
  EXPECT_EQ(recorded_inner(rows, "blk.0.attn.probs", Inner::probs, 1, 0), (Row{0.25, 0.5, 0.25}));
  EXPECT_EQ(recorded_inner(rows, "blk.0.attn.probs", Inner::probs, 1, 1), (Row{0, 0.5, 0.5})) << "a window";
  EXPECT_EQ(recorded_inner(rows, "blk.0.attn.probs", Inner::probs, 2, 0), (Row{0, 0.5, 0.5, 0}))
      << "rows may have more keys later";
  EXPECT_TRUE(recorded_inner(rows, "blk.0.attn.kq", Inner::kq, 2, 0).empty());
}

class InnerOf : public ::testing::TestWithParam<const char*> {};

TEST_P(InnerOf, ARunEqualsWhatItsOwnQueriesKeysAndValuesGive) {
  const testing::TinyFile file{{.arch = GetParam(), .format = Format::Q8_0}};
  const Model model{file.path(), {.threads = 2}};
  const testing::Folder folder;
  RunRequest r{.tokens = testing::prompt(9), .steps = 2, .only = "*,*.attn.*", .path = folder.path + "/t"};
  r.options.arith = Arith::ref64, r.durable = false;
  record_run(model, r);
  const Trace t = Trace::open(r.path);
  const Rows rows(t);
  const Program& p = model.program();
  for (Value v = 0; v < Value(p.nodes.size()); ++v) {
    if (!std::holds_alternative<Attention>(p.nodes[size_t(v)].op)) continue;
    const std::vector<Difference> found = compare_inner(&p, rows, rows, p.nodes[size_t(v)].name, 11);
    ASSERT_EQ(found.size(), 3u);
    const AttentionRows right(p, v, rows, 11);
    for (const Difference& d : found) {
      EXPECT_EQ(d.tokens, 11);
      EXPECT_EQ(int(d.by_head.size()), right.heads() > 1 ? right.heads() : 0);
    }
    for (int64_t position = 0; position < 11; ++position) {
      const std::vector<double> kq = right.kq(position), probs = right.probs(kq, position);
      const std::vector<double> kqv = right.kqv(probs),
                                attn = rows.row(rows.full(p.nodes[size_t(v)].name).at(position));
      ASSERT_EQ(kqv.size(), attn.size());
      for (size_t i = 0; i < attn.size(); ++i) EXPECT_NEAR(kqv[i], attn[i], 1e-5 * (1 + std::abs(attn[i])));
      const auto recorded = recorded_inner(rows, inner_name(p.nodes[size_t(v)].name, Inner::probs),
                                           Inner::probs, position, right.window());
      ASSERT_EQ(recorded.size(), probs.size());
      for (size_t i = 0; i < probs.size(); ++i) EXPECT_NEAR(recorded[i], probs[i], 1e-5);
    }
  }
}

// The recorded scores of an attention times a factor, as a trace of their own.
Trace scores_times(const Rows& rows, const std::string& attention, double factor,
                   const std::vector<int>& tokens) {
  const std::string name = inner_name(attention, Inner::kq);
  std::string records;
  for (const auto& [position, at] : rows.full(name)) {
    std::vector<double> row = recorded_inner(rows, name, Inner::kq, position, 0);
    for (double& x : row) x *= factor;
    records += fmt::format(R"({}{{"value":"{}","tokens":[{},1],"shape":[1,{},{}],"data":[{}]}})",
                           records.empty() ? "" : ",", name, position, at.record->heads, position + 1,
                           fmt::join(row, ","));
  }
  return Trace::parse(fmt::format(R"({{"plumb_trace":1,"input":{{"tokens":[{}]}},"records":[{}]}})",
                                  fmt::join(tokens, ","), records),
                      "theirs");
}

TEST_P(InnerOf, ScoresMayHoldTheScaleAlreadyAndNoOtherFactor) {
  const testing::TinyFile file{{.arch = GetParam(), .format = Format::Q8_0}};
  const Model model{file.path(), {.threads = 2}};
  const testing::Folder folder;
  RunRequest r{.tokens = testing::prompt(9), .only = "*,*.attn.*", .path = folder.path + "/t"};
  r.options.arith = Arith::ref64, r.durable = false;
  record_run(model, r);
  const Trace ours = Trace::open(r.path);
  const Rows rows(ours);
  const Program& p = model.program();
  const double scale = std::get<Attention>(p.nodes[size_t(p.find("blk.0.attn"))].op).scale;
  for (const auto& [factor, gauge] : {std::pair{scale, "q_scaled"}, {1.0, ""}, {0.9, ""}}) {
    const Trace theirs = scores_times(rows, "blk.0.attn", factor, r.tokens);
    const std::vector<Difference> found = compare_inner(&p, Rows(theirs), rows, "blk.0.attn", 9);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].gauge, gauge) << factor;
    EXPECT_EQ(found[0].error < 1e-5, factor != 0.9) << found[0].error;
    const Diff whole = diff({.theirs = theirs, .model = &model});
    ASSERT_EQ(whole.values.size(), 1u);
    EXPECT_EQ(whole.values[0].gauge, gauge) << factor;
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, InnerOf, ::testing::Values("llama", "gemma3"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace plumb::trace
