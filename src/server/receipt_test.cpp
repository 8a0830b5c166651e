// Where two records of answers part, and receipts that are none.
#include "server/receipt.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace plumb::server {
namespace {

using Answers = std::vector<RecordedAnswer>;

std::string parted(const std::function<void(Answers&)>& change) {
  const Answers then = {{{1, 2}, {3, 4, 5}, {"a", "b", "c"}, "length"}, {{1}, {7}, {"d", "e"}, "stop"}};
  Answers now = then;
  change(now);
  const Json d = first_difference(then, now);
  return d.is_null() ? "same"
                     : *d.find("what")->text() + " " + dump(*d.find("answer")) + " " + dump(*d.find("index"));
}

TEST(Receipt, TheFirstDifferenceIsNamed) {
  EXPECT_EQ(parted([](Answers&) {}), "same");
  EXPECT_EQ(parted([](Answers& a) { a[0].logits[1] = "x", a[0].tokens[1] = 9; }), "logits 0 1");
  EXPECT_EQ(parted([](Answers& a) { a[0].logits[2] = "x", a[0].tokens[1] = 9; }), "token 0 1");
  EXPECT_EQ(parted([](Answers& a) { a[0].tokens.pop_back(), a[0].logits.pop_back(); }), "length 0 2");
  EXPECT_EQ(parted([](Answers& a) { a[0].tokens.push_back(1), a[0].logits.push_back("x"); }), "length 0 3");
  EXPECT_EQ(parted([](Answers& a) { a[1].logits.pop_back(); }), "logits 1 1");
  EXPECT_EQ(parted([](Answers& a) { a[1].logits[1] = "x"; }), "logits 1 1");
  EXPECT_EQ(parted([](Answers& a) { a[1].finish_reason = "length"; }), "finish_reason 1 1");
  EXPECT_EQ(parted([](Answers& a) { a[1].prompt.push_back(1), a[1].logits[0] = "x"; }), "prompt 1 1");
  EXPECT_EQ(parted([](Answers& a) { a.pop_back(); }), "answers 1 0");
}

TEST(Receipt, WhatIsNoneIsRefusedWithItsPointer) {
  const auto pointer = [](const char* text) {
    try {
      read_receipt(parse_json(text, "receipt"), "/receipt");
    } catch (const Error& e) {
      return e.code() == "request.field" ? e.where().key : e.code();
    }
    return std::string("read");
  };
  EXPECT_EQ(pointer("{}"), "/receipt/plumb_receipt");
  EXPECT_EQ(pointer(R"({"plumb_receipt":1})"), "/receipt/request");
  const std::string good =
      R"({"plumb_receipt":1,"request":{},"model":{"sha256":""},"system_fingerprint":"",)";
  EXPECT_EQ(pointer((good + R"("answers":[]})").c_str()), "read");
  EXPECT_EQ(pointer((good + R"("answers":[1]})").c_str()), "/receipt/answers/0");
  EXPECT_EQ(pointer((good + R"("answers":[],"x":1})").c_str()), "/receipt/x");
  EXPECT_EQ(pointer((good + R"("answers":[{"prompt":[1],"tokens":[-1]}]})").c_str()),
            "/receipt/answers/0/tokens");
}

}  // namespace
}  // namespace plumb::server
