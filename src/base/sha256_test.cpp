#include "base/sha256.h"

#include <gtest/gtest.h>

#include <string>

namespace plumb {
namespace {

TEST(Sha256, HasTheDigestsOfFips180) {
  EXPECT_EQ(hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsTheSameWhereverTheBytesAreCut) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += char(i * 7);
  for (size_t length : {0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 300}) {
    for (size_t cut = 0; cut <= length; ++cut) {
      Sha256Sum sum;
      sum.add(text.substr(0, cut)), sum.add(text.substr(cut, length - cut));
      EXPECT_EQ(hex(sum.digest()), hex(sha256(text.substr(0, length)))) << length << " cut at " << cut;
    }
  }
  EXPECT_EQ(hex(sha256(text.substr(0, 119))),
            "7a6589821178918ca8d9edaba5abfc1e9b2669564f4469b66885379c1530b2c8");
  EXPECT_EQ(hex(sha256(text.substr(0, 56))),
            "9b20501dfd1d99161c257950f3444f3e49230c351c5c8e0943ef369f85f5205d");
}

}  // namespace
}  // namespace plumb
