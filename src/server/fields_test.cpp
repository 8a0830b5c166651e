// Fields of requests: bounds, unknown names, and the place that an error names.
#include "server/fields.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "server/answers.h"

namespace plumb::server {
namespace {

template <class F>
std::string refused_at(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.where().key;
  }
  return "nothing thrown";
}

TEST(Fields, TakeValuesWithinTheirBoundsAndNameTheOthers) {
  const Json body = parse_json(R"({"a":5,"b":1.5,"c":"x","d":true,"e":null})", "body");
  Fields f(body);
  EXPECT_EQ(f.integer("a", 0, 5, 5), 5);
  EXPECT_EQ(refused_at([&] { f.integer("a", 0, 6, 9); }), "/a");
  EXPECT_EQ(refused_at([&] { f.integer("b", 0, 0, 9); }), "/b");
  EXPECT_EQ(f.number("b", 0, 1, 2), 1.5);
  EXPECT_EQ(refused_at([&] { f.boolean("c", false); }), "/c");
  EXPECT_EQ(refused_at([&] { f.text("d"); }), "/d");
  EXPECT_EQ(f.integer("e", 7, 0, 9), 7);  // null is absent
  EXPECT_EQ(refused_at([&] { f.need("e"); }), "/e");
  f.finish();
}

TEST(Fields, WhatNobodyAskedForIsNamedWithItsPlace) {
  const Json body = parse_json(R"({"known":1,"inner":{"odd":1}})", "body");
  Fields f(body);
  f.find("known");
  EXPECT_EQ(refused_at([&] { f.finish(); }), "/inner");
  Fields inner(f.need("inner"), f.at("inner"));
  EXPECT_EQ(refused_at([&] { inner.finish(); }), "/inner/odd");
}

TEST(Sse, IsOneLineOfDataWhateverItHolds) {
  Json data;
  data.set("text", "a\nb\r\n\n");
  EXPECT_EQ(sse(data), "data: {\"text\":\"a\\nb\\r\\n\\n\"}\n\n");
  EXPECT_EQ(sse("name", Json(Json::Object{})), "event: name\ndata: {}\n\n");
}

}  // namespace
}  // namespace plumb::server
