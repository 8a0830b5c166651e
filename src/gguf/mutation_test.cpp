// Thousands of damaged files: whatever a file says, it is read or refused with code, place, expected and
// found, at once and in little memory. Every field of the head x boundary values, every array x element types
// and counts, every tensor x types, and a cut at every byte of the head.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstring>
#include <map>
#include <set>

#include "gguf/test_files.h"

#if defined(__SANITIZE_ADDRESS__)
#define PLUMB_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define PLUMB_TEST_SANITIZED 1
#endif
#endif

namespace plumb::testing {
namespace {

// While it lives, the program may use 512 MiB of address space; not under sanitizers, whose shadow is larger.
class LittleMemory {
 public:
  LittleMemory() {
    getrlimit(RLIMIT_AS, &before_);
#ifndef PLUMB_TEST_SANITIZED
    rlimit little = before_;
    little.rlim_cur = rlim_t(512) << 20;
    setrlimit(RLIMIT_AS, &little);
#endif
  }
  ~LittleMemory() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_ = {};
};

class Mutation : public ::testing::Test {
 protected:
  void TearDown() override {
    RecordProperty("mutants", mutants_);
    RecordProperty("accepted", accepted_);
    RecordProperty("slowest_microseconds", int(slowest_ * 1e6));
  }

  // Reads the mutant and notes what came of it.
  void judge(const Seed& mutant, const std::string& what) {
    ++mutants_;
    const auto start = std::chrono::steady_clock::now();
    try {
      EXPECT_TRUE(walk(parse(mutant))) << mutant.name << ", " << what;
      ++accepted_;
    } catch (const Error& e) {
      EXPECT_TRUE(is_complete(e)) << mutant.name << ", " << what << ": " << e.what();
      ++codes_[e.code()];
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    slowest_ = std::max(slowest_, seconds);
    EXPECT_LT(seconds, 1.0) << mutant.name << ", " << what;
  }

  static uint64_t get(const Bytes& b, const GgufField& f) {
    uint64_t v = 0;
    std::memcpy(&v, b.data() + f.offset, size_t(f.bytes));
    return v;
  }
  static void put(Bytes& b, const GgufField& f, uint64_t v) {
    std::memcpy(b.data() + f.offset, &v, size_t(f.bytes));
  }

  static std::set<uint64_t> boundaries(uint64_t original, int bytes) {
    std::set<uint64_t> values;
    for (uint64_t v : {uint64_t(0), uint64_t(1), uint64_t(2), original - 1, original + 1, original * 2})
      values.insert(v);
    for (int shift : {7, 8, 15, 16, 20, 24, 31, 32, 40, 62, 63}) {
      for (int d : {-1, 0, 1}) values.insert((uint64_t(1) << shift) + uint64_t(d));
    }
    values.insert(~uint64_t(0));
    std::set<uint64_t> fitting;
    for (uint64_t v : values) fitting.insert(bytes == 8 ? v : v & ((uint64_t(1) << 8 * bytes) - 1));
    fitting.erase(original);
    return fitting;
  }

  LittleMemory little_;
  int mutants_ = 0;
  int accepted_ = 0;
  double slowest_ = 0;
  std::map<std::string, int> codes_;
};

TEST_F(Mutation, TheSeedsThemselvesAreReadAndSmall) {
  for (const Seed& s : seeds()) {
    for (const Bytes& b : s.parts) EXPECT_LT(b.size(), 10'000u) << s.name;
    EXPECT_TRUE(walk(parse(s))) << s.name;
  }
}

TEST_F(Mutation, EveryHeadFieldWithEveryBoundaryValueIsReadOrRefusedInFull) {
  for (const Seed& s : seeds()) {
    for (size_t part = 0; part < s.parts.size(); ++part) {
      for (const GgufField& f : s.fields[part]) {
        Seed mutant = s;
        for (uint64_t v : boundaries(get(s.parts[part], f), f.bytes)) {
          put(mutant.parts[part], f, v);
          judge(mutant, f.what + " at byte " + std::to_string(f.offset) + " = " + std::to_string(v));
        }
      }
    }
  }
  EXPECT_GE(mutants_, 5'000);
  EXPECT_GE(codes_.size(), 20u) << "the mutants should reach most refusals";
  EXPECT_GE(accepted_, 100);
}

TEST_F(Mutation, EveryArrayWithEveryElementTypeAndCountIsReadOrRefusedInFull) {
  for (const Seed& s : seeds()) {
    for (size_t part = 0; part < s.parts.size(); ++part) {
      const std::vector<GgufField>& fields = s.fields[part];
      for (size_t i = 0; i + 1 < fields.size(); ++i) {
        if (fields[i].what != "element type") continue;
        const uint64_t n = get(s.parts[part], fields[i + 1]);
        Seed mutant = s;
        for (uint64_t type = 0; type <= 13; ++type) {
          for (uint64_t count :
               {uint64_t(0), uint64_t(1), n - 1, n, n + 1, uint64_t(1) << 24, uint64_t(1) << 61}) {
            put(mutant.parts[part], fields[i], type);
            put(mutant.parts[part], fields[i + 1], count);
            judge(mutant, "element type " + std::to_string(type) + ", count " + std::to_string(count));
          }
        }
      }
    }
  }
  EXPECT_GE(mutants_, 1'000);
}

TEST_F(Mutation, EveryTensorWithEveryTypeIdIsReadOrRefusedInFull) {
  for (const Seed& s : seeds()) {
    for (size_t part = 0; part < s.parts.size(); ++part) {
      for (const GgufField& f : s.fields[part]) {
        if (f.what != "tensor type") continue;
        Seed mutant = s;
        for (uint64_t type = 0; type < 64; ++type) {
          put(mutant.parts[part], f, type);
          judge(mutant, "tensor type " + std::to_string(type));
        }
      }
    }
  }
  EXPECT_GE(mutants_, 1'000);
}

TEST_F(Mutation, ShapesWhoseProductWrapsAreRefused) {
  const std::vector<std::vector<uint64_t>> shapes = {{4, (1u << 30) - 1, (1u << 30) + 1, 1},
                                                     {uint64_t(1) << 32, uint64_t(1) << 32, 1, 1},
                                                     {uint64_t(1) << 62, 4, 1, 1},
                                                     {uint64_t(1) << 62, 1, 1, 2},
                                                     {3, 0x5555555555555556, 1, 1}};
  Seed s = seed("model", {small_model()});
  std::vector<GgufField> dimensions;
  for (size_t i = 0; i + 4 < s.fields[0].size(); ++i) {
    if (s.fields[0][i].what != "dimension count" || get(s.parts[0], s.fields[0][i]) != 4) continue;
    dimensions.assign(s.fields[0].begin() + ptrdiff_t(i) + 1, s.fields[0].begin() + ptrdiff_t(i) + 5);
  }
  ASSERT_EQ(dimensions.size(), 4u);
  for (const std::vector<uint64_t>& shape : shapes) {
    for (size_t d = 0; d < 4; ++d) put(s.parts[0], dimensions[d], shape[d]);
    judge(s, "shape");
  }
  EXPECT_EQ(accepted_, 0);
}

TEST_F(Mutation, ACutAtAnyByteOfTheHeadIsRefusedInFull) {
  for (const Seed& s : seeds()) {
    for (size_t part = 0; part < s.parts.size(); ++part) {
      const int64_t end = s.fields[part].back().offset + s.fields[part].back().bytes;
      for (int64_t n = 0; n < end; ++n) {
        Seed mutant = s;
        mutant.parts[part].resize(size_t(n));
        judge(mutant, "cut at byte " + std::to_string(n));
      }
    }
  }
  EXPECT_EQ(accepted_, 0);
  EXPECT_GE(mutants_, 4'000);
}

TEST_F(Mutation, ACutAtAnyByteOfTheDataIsRefusedUpToTheLastTensorsEnd) {
  const Seed s = seed("model", {small_model()});
  const Gguf whole = parse(s);
  const GgufTensor last = whole.tensors().back();
  for (int64_t n = last.offset - 100; n < last.offset + last.bytes; ++n) {
    Seed mutant = s;
    mutant.parts[0].resize(size_t(n));
    judge(mutant, "cut at byte " + std::to_string(n));
  }
  EXPECT_EQ(accepted_, 0);
  EXPECT_EQ(codes_.size(), 1u);
  EXPECT_GT(codes_["gguf.tensor_range"], 0);
}

TEST_F(Mutation, AnyOneByteOfASmallFileMayHoldAnyOfFourValues) {
  for (const Seed& s : {seed("types", {all_types(3)}), seed("model", {small_model()})}) {
    const int64_t end = s.fields[0].back().offset + s.fields[0].back().bytes;
    for (int64_t i = 0; i < end; ++i) {
      Seed mutant = s;
      for (int v : {0x00, 0x1b, 0x80, -1}) {
        mutant.parts[0][size_t(i)] = v < 0 ? uint8_t(~s.parts[0][size_t(i)]) : uint8_t(v);
        judge(mutant, "byte " + std::to_string(i) + " = " + std::to_string(v));
      }
    }
  }
  EXPECT_GE(mutants_, 4'000);
}

}  // namespace
}  // namespace plumb::testing
