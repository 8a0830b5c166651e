// What is written as one text is what is written as a folder; beyond the limits nothing is.
#include "trace/evidence_writer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "trace/recorder.h"
#include "trace/test_support.h"

namespace plumb::trace {
namespace {

using testing::code_of;
using testing::Folder;
using testing::prompt;
using testing::TinyFile;

TEST(EvidenceWriter, HoldsWhatTheFolderHoldsBitForBitInF32) {
  const TinyFile file{{}};
  const Model model{file.path(), {.threads = 2}};
  const Folder folder;
  for (Level level : {Level::stats, Level::sketch, Level::full}) {
    RunRequest r{.tokens = prompt(7), .steps = 2, .level = level};
    r.engine.set("name", "plumb"), r.durable = false, r.path = folder.path + "/t";
    record_run(model, r);
    EvidenceWriter text(kMaxJsonBytes, kMaxJsonNodes);
    record_run(model, r, text);
    ASSERT_TRUE(text.finished());
    const Trace a = Trace::open(r.path), b = Trace::parse(text.take(), "text");
    EXPECT_EQ(a.header().tokens, b.header().tokens);
    EXPECT_EQ(a.header().calls, b.header().calls);
    ASSERT_EQ(a.records().size(), b.records().size());
    for (size_t i = 0; i < a.records().size(); ++i) {
      Record x = a.records()[i], y = b.records()[i];
      if (level == Level::full) {
        // Digits that identify a float among floats are those of another double.
        const auto rows = a.rows(a.records()[i], 0, x.tokens), same = b.rows(b.records()[i], 0, y.tokens);
        EXPECT_TRUE(testing::same_bits(std::vector<float>(rows.begin(), rows.end()),
                                       std::vector<float>(same.begin(), same.end())))
            << x.value;
        x.shard = 0, x.tensor.clear(), y.data.clear();
      }
      EXPECT_EQ(dump(to_json(x)), dump(to_json(y)));
    }
  }
}

TEST(EvidenceWriter, KeepsTheSignOfZeroAndWhatIsNotFinite) {
  Record r;
  r.value = "logits", r.first = 0, r.tokens = 1, r.dim = 4;
  EvidenceWriter text(1000, 100);
  text.add(r, std::vector<float>{-0.0f, 0, NAN, -INFINITY});
  text.finish(parse_json(R"({"plumb_trace":1})", "h"));
  const Trace t = Trace::parse(text.take(), "text");
  const std::vector<double> x = t.rows(t.records()[0], 0, 1);
  EXPECT_TRUE(std::signbit(x[0]) && !std::signbit(x[1]) && std::isnan(x[2]) && x[3] == -INFINITY);
}

TEST(EvidenceWriter, RefusesTheFirstByteAndTheFirstNumberBeyondItsLimits) {
  const auto write = [](int64_t bytes, int64_t nodes) {
    Record r;
    r.value = "logits", r.first = 0, r.tokens = 1, r.dim = 4;
    EvidenceWriter text(bytes, nodes);
    text.add(r, std::vector<float>{1, 2, 3, 4});
    text.finish(parse_json(R"({"plumb_trace":1})", "h"));
    return text.take();
  };
  int64_t bytes = 1, nodes = 1;
  while (code_of([&] { write(bytes, 1000); }) == "trace.too_large") ++bytes;
  while (code_of([&] { write(1000, nodes); }) == "trace.too_large") ++nodes;
  const std::string text = write(bytes, nodes);
  EXPECT_NEAR(double(text.size()), double(bytes), 20);
  EXPECT_EQ(code_of([&] { parse_json(text, "t", {.nodes = nodes + 2}); }), "nothing thrown");
  EXPECT_EQ(code_of([&] { parse_json(text, "t", {.nodes = nodes + 1}); }), "json.nodes");
  EXPECT_LE(nodes - 3, EvidenceWriter::nodes(Level::full, 1, 0, 4));
}

}  // namespace
}  // namespace plumb::trace
