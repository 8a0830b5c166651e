// The trace file: what is written is read back; what is cut, wrong or huge is refused with its place.
#include "trace/trace.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "trace/measure.h"
#include "trace/test_support.h"
#include "trace/writer.h"

namespace plumb::trace {
namespace {

namespace fs = std::filesystem;
using testing::code_of;
using testing::Folder;

Record record(const std::string& value, int64_t first, int64_t tokens, int64_t heads, int64_t dim) {
  Record r;
  r.value = value, r.first = first, r.tokens = tokens, r.heads = heads, r.dim = dim;
  return r;
}

Json header() {
  Json h =
      parse_json(R"({"plumb_trace":1,"engine":{"name":"test"},"input":{"tokens":[1,2,3],"prompt":2}})", "h");
  return h;
}

std::vector<float> numbers(size_t n) {
  std::vector<float> x;
  for (size_t i = 0; i < n; ++i) x.push_back(float(i) * 0.5f - 3);
  return x;
}

void write_sample(const std::string& path) {
  Writer w(path);
  w.add(record("token_embd", 0, 2, 0, 6), numbers(12));
  Record r = record("blk.0.attn_q", 0, 2, 3, 4);
  const std::vector<float> x = numbers(24);
  measure(std::vector<double>(x.begin(), x.end()), true, r);
  w.add(r, x);
  w.add(record("logits", 1, 1, 0, 5), numbers(5));
  w.finish(header());
}

TEST(Trace, WhatIsWrittenIsReadBack) {
  const Folder folder;
  const std::string path = folder.path + "/a.trace";
  write_sample(path);
  const Trace t = Trace::open(path);
  EXPECT_EQ(t.header().engine, "test");
  EXPECT_EQ(t.header().tokens, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(t.header().prompt, 2);
  ASSERT_EQ(t.records().size(), 3u);
  const Record& q = t.records()[1];
  EXPECT_EQ(q.value, "blk.0.attn_q");
  EXPECT_EQ(q.first, 0);
  EXPECT_EQ(q.tokens, 2);
  EXPECT_EQ(q.heads, 3);
  EXPECT_EQ(q.dim, 4);
  const std::vector<float> x = numbers(24);
  EXPECT_EQ(t.rows(q, 1, 1), std::vector<double>(x.begin() + 12, x.end()));
  EXPECT_EQ(q.stats[Stat::max]->value, 8.5);
  EXPECT_EQ(q.sketch.size(), size_t(kSketch));
  EXPECT_EQ(t.rows(t.records()[2], 0, 1).size(), 5u);
}

TEST(Trace, AWriterThatDoesNotFinishLeavesNothingAndReplacesTracesOnly) {
  const Folder folder;
  const std::string path = folder.path + "/a.trace";
  {
    Writer w(path), v(path);
  }
  EXPECT_TRUE(fs::is_empty(folder.path));
  write_sample(path);
  write_sample(path + "/");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path), {}), 1);
  std::ofstream(folder.path + "/file") << "x";
  EXPECT_EQ(code_of([&] { Writer w(folder.path + "/file"); }), "trace.exists");
  EXPECT_EQ(code_of([&] { Writer w(folder.path); }), "trace.exists");
  EXPECT_EQ(code_of([&] { Writer w(folder.path + "/none/a.trace"); }), "file.write");
}

TEST(Trace, ATraceCutAnywhereIsRefusedWithItsPlace) {
  const Folder folder;
  const std::string path = folder.path + "/a.trace";
  write_sample(path);
  for (const char* name : {"trace.json", "records.jsonl", "values-00001.safetensors"}) {
    const std::string file = path + "/" + name;
    const std::string whole = read_file(file, 1 << 20);
    for (size_t length = 0; length < whole.size() - 1; length += 1 + whole.size() / 97) {
      std::ofstream(file, std::ios::trunc) << whole.substr(0, length);
      try {
        Trace::open(path);
        ADD_FAILURE() << name << " cut to " << length;
      } catch (const Error& e) {
        EXPECT_FALSE(e.where().file.empty()) << e.what();
        EXPECT_FALSE(e.expected().empty() && e.found().empty()) << e.what();
      }
    }
    std::ofstream(file, std::ios::trunc) << whole;
    Trace::open(path);
  }
  fs::remove(path + "/records.jsonl");
  EXPECT_EQ(code_of([&] { Trace::open(path); }), "file.open");
}

struct Case {
  const char *record, *code, *key;
};

TEST(Trace, RecordsThatContradictThemselvesAreRefusedWithMemberExpectedAndFound) {
  const Case cases[] = {
      {R"({"shape":[1,2]})", "trace.record", "/records/0/value"},
      {R"({"value":"x","tokens":[0,2],"shape":[3,4]})", "trace.record", "/records/0/shape"},
      {R"({"value":"x","shape":[4]})", "trace.record", "/records/0/shape"},
      {R"({"value":"x","shape":[0,4]})", "trace.record", "/records/0/shape"},
      {R"({"value":"x","shape":[2147483648,2147483648,2147483648]})", "trace.record", "/records/0/shape"},
      {R"({"value":"x","shape":[1,-4]})", "trace.record", "/records/0/shape"},
      {R"({"value":"x","shape":[1,2],"data":[1,2,3]})", "trace.record", "/records/0/data"},
      {R"({"value":"x","data":[1,2,3]})", "trace.record", "/records/0/data"},
      {R"({"value":"x","stats":{"rms":"1.2.3"}})", "trace.record", "/records/0/stats/rms"},
      {R"({"value":"x","stats":{"rms":null,"max":[1]}})", "trace.record", "/records/0/stats/max"},
      {R"({"value":"x","sketch":[1,2]})", "trace.record", "/records/0/sketch"},
      {R"({"value":"x","head8":[1,2,3,4,5,6,7,8,9]})", "trace.record", "/records/0/head8"},
      {R"({"value":"x","shape":[1,2],"shard":1})", "trace.record", "/records/0/shard"},
      {R"({"value":"x","shape":[1,2],"shard":1,"tensor":"x"})", "trace.record", "/records/0/shard"},
      {R"({"value":"x","step":-1})", "trace.record", "/records/0/step"},
      {R"({"value":"x","samples":[[1]]})", "trace.record", "/records/0/samples"},
      {R"({"value":7})", "trace.record", "/records/0/value"},
      {R"(3)", "trace.record", "/records/0/"},
  };
  for (const Case& c : cases) {
    try {
      Trace::parse(std::string(R"({"plumb_trace":1,"records":[)") + c.record + "]}", "t.json");
      ADD_FAILURE() << c.record;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), c.code) << c.record;
      EXPECT_EQ(e.where().key, c.key) << c.record;
    }
  }
  EXPECT_EQ(code_of([] { Trace::parse("{}", "t"); }), "trace.record");
  EXPECT_EQ(code_of([] { Trace::parse(R"({"plumb_trace":2,"records":[]})", "t"); }), "trace.record");
  EXPECT_EQ(code_of([] { Trace::parse(R"({"plumb_trace":1,"records":3})", "t"); }), "trace.header");
  EXPECT_EQ(code_of([] { Trace::parse("GGUF\3", "t"); }), "json.syntax");
}

TEST(Trace, PrintedNumbersKeepHalfAUnitOfTheirLastDigit) {
  const Trace t = Trace::parse(
      R"({"plumb_trace":1,"records":[{"value":"x","head8":["0.0298","-12","1.5e-3","nan","-inf",0.25,"+3.0"]}]})",
      "t");
  const std::vector<Number>& n = t.records()[0].head8;
  EXPECT_DOUBLE_EQ(n[0].value, 0.0298);
  EXPECT_DOUBLE_EQ(n[0].unit, 0.00005);
  EXPECT_EQ(n[1].value, -12);
  EXPECT_EQ(n[1].unit, 0);
  EXPECT_DOUBLE_EQ(n[2].unit, 0.5e-4);
  EXPECT_TRUE(std::isnan(n[3].value));
  EXPECT_EQ(n[4].value, -INFINITY);
  EXPECT_EQ(n[5].unit, 0);
  EXPECT_DOUBLE_EQ(n[6].value, 3);
}

std::string shard(const std::string& index, size_t data) {
  std::string s(8, '\0');
  for (size_t i = 0, n = index.size(); i < 8; ++i, n >>= 8) s[i] = char(n & 255);
  return s + index + std::string(data, '\0');
}

TEST(Shard, LengthsOffsetsAndShapesOutsideTheFileAreRefused) {
  const auto parse = [](const std::string& s) {
    return code_of([&] { parse_shard({reinterpret_cast<const uint8_t*>(s.data()), s.size()}, "s"); });
  };
  EXPECT_EQ(parse(shard(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8)), "nothing thrown");
  EXPECT_EQ(parse(""), "trace.shard");
  EXPECT_EQ(parse(std::string(8, '\xff')), "trace.shard");
  EXPECT_EQ(parse(shard("[]", 0)), "trace.shard");
  EXPECT_EQ(parse(shard(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7)), "trace.shard");
  EXPECT_EQ(parse(shard(R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8)), "trace.shard");
  EXPECT_EQ(parse(shard(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8)), "trace.shard");
  EXPECT_EQ(parse(shard(R"({"x":{"dtype":"I8","shape":[8],"data_offsets":[0,8]}})", 8)), "trace.shard");
  EXPECT_EQ(parse(shard(R"({"x":{"dtype":"F32","shape":[99999999,99999999],"data_offsets":[0,8]}})", 8)),
            "trace.shard");
  EXPECT_EQ(parse(shard(R"({"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8)), "trace.shard");
}

TEST(Measure, StatisticsCountWhatIsNotFiniteApart) {
  Record r = record("x", 0, 2, 0, 4);
  measure(std::vector<double>{1, -3, NAN, 2, INFINITY, 0, 4, -3}, false, r);
  EXPECT_EQ(r.stats[Stat::n]->value, 8);
  EXPECT_EQ(r.stats[Stat::nan]->value, 1);
  EXPECT_EQ(r.stats[Stat::inf]->value, 1);
  EXPECT_EQ(r.stats[Stat::sum]->value, 1);
  EXPECT_EQ(r.stats[Stat::min]->value, -3);
  EXPECT_EQ(r.stats[Stat::max]->value, 4);
  EXPECT_EQ(r.stats[Stat::argmax]->value, 6);
  EXPECT_NEAR(r.stats[Stat::rms]->value, std::sqrt(39 / 6.0), 1e-6);
  EXPECT_EQ(r.stats[Stat::q50]->value, 1);
  EXPECT_EQ(r.rms_per_token.size(), 2u);
}

// Figures of an implementation in Python: docs/trace-format.md, word by word.
TEST(Measure, TheSketchIsTheOneThatTheFormatDefines) {
  const std::array<double, kSketch> s = sketch_of(std::vector<double>{1, 2, 4, 8, 16, 32}, 3, 5);
  const double expected[] = {-1.125, -4.875, 5.375, 5.125, -3.625, 7.625,
                             -0.375, -0.625, 0.125, 6.875, -3.125, 1.125};
  for (size_t i = 0; i < std::size(expected); ++i) EXPECT_EQ(s[i], expected[i]) << i;
}

TEST(Measure, SketchesTellDistancesWithinEighteenPercentAndAddUp) {
  std::vector<double> x(3000), y(3000);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = std::sin(double(i * i)), y[i] = x[i] + 0.1 * std::cos(double(3 * i));
  const auto a = sketch_of(x, 300, 0), b = sketch_of(y, 300, 0);
  const auto head = sketch_of(std::span(x).first(900), 300, 0),
             tail = sketch_of(std::span(x).subspan(900), 300, 3);
  double exact = 0, told = 0;
  for (size_t i = 0; i < x.size(); ++i) exact += (x[i] - y[i]) * (x[i] - y[i]);
  for (size_t j = 0; j < kSketch; ++j) {
    told += (a[j] - b[j]) * (a[j] - b[j]);
    EXPECT_NEAR(head[j] + tail[j], a[j], 1e-9);
  }
  EXPECT_NEAR(told / exact, 1, 3 * std::sqrt(2.0 / kSketch));
}

}  // namespace
}  // namespace plumb::trace
