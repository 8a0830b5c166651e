// The file of packed weights: what was kept is found again; whatever is not exactly that counts as absent.
#include "cpu/packed_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

namespace plumb {
namespace {

namespace fs = std::filesystem;

class PackedFiles : public ::testing::Test {
 protected:
  PackedFiles() { fs::create_directories(folder_); }
  ~PackedFiles() override { fs::remove_all(folder_); }

  void keep(uint64_t key, uint8_t first = 1) {
    PackedFile f = PackedFile::create(path_, parts_, kSource);
    ASSERT_FALSE(f.empty());
    for (int64_t i = 0; i < kBytes; ++i) f.data()[i] = uint8_t(first + i * 7);
    ASSERT_TRUE(f.keep(key, parts_, pool_));
    EXPECT_EQ(f.data()[3], uint8_t(first + 21)) << "still there after it was kept";
  }
  PackedFile find(uint64_t key) { return PackedFile::find(path_, key, parts_, pool_); }

  std::string contents() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }
  size_t files() const {
    return size_t(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  static constexpr int64_t kBytes = 10000;
  static constexpr const char* kSource = "/models/model.gguf";
  const fs::path folder_ = fs::temp_directory_path() / ("plumb_packed_" + std::to_string(::getpid()));
  const std::string path_ = (folder_ / "model.r16").string();
  const std::vector<PackedPart> parts_ = {{0, 6000}, {6016, kBytes - 6016}};
  Pool pool_{2};
};

TEST_F(PackedFiles, WhatWasKeptIsFoundUnderItsKeyAlone) {
  EXPECT_TRUE(find(7).empty());
  keep(7);
  EXPECT_EQ(files(), 1u);
  const PackedFile f = find(7);
  ASSERT_FALSE(f.empty());
  for (int64_t i = 0; i < kBytes; ++i) ASSERT_EQ(f.data()[i], uint8_t(1 + i * 7));
  EXPECT_TRUE(find(8).empty());
  EXPECT_TRUE(PackedFile::find(path_, 7, {{0, kBytes}}, pool_).empty()) << "other parts";
}

TEST_F(PackedFiles, IsReplacedByWhatIsKeptLaterWhileTheFirstStaysReadable) {
  keep(7);
  const PackedFile first = find(7);
  keep(8, 99);
  EXPECT_TRUE(find(7).empty());
  EXPECT_EQ(find(8).data()[0], 99);
  EXPECT_EQ(first.data()[0], 1);
}

TEST_F(PackedFiles, CutOrLengthenedAnywhereIsAbsent) {
  keep(7);
  const std::string whole = contents();
  for (size_t n = 0; n < whole.size(); n += n < 200 ? 1 : 397) {
    write(whole.substr(0, n));
    ASSERT_TRUE(find(7).empty()) << n;
  }
  write(whole + "x");
  EXPECT_TRUE(find(7).empty());
  write(whole);
  EXPECT_FALSE(find(7).empty());
}

TEST_F(PackedFiles, AFlippedBitInHeaderTableOrDataIsNoticed) {
  keep(7);
  const std::string whole = contents();
  const size_t data = whole.size() - std::strlen(kSource) - size_t(kBytes);
  std::mt19937 random(3);
  for (int i = 0; i < 400; ++i) {
    size_t at = i < 64 ? size_t(i) : data + random() % size_t(kBytes);
    if (at >= data + 6000 && at < data + 6016) continue;  // between the parts nobody reads
    std::string flipped = whole;
    flipped[at] = char(flipped[at] ^ (1 << random() % 8));
    write(flipped);
    ASSERT_TRUE(find(7).empty()) << at;
  }
}

TEST_F(PackedFiles, OnceFoundRightItIsReadAgainOnlyAfterSomebodyWroteToIt) {
  const auto nanoseconds = [&] {
    struct stat s = {};
    ::stat(path_.c_str(), &s);
    return s.st_mtim.tv_nsec;
  };
  const auto age = [&](time_t seconds, long ns) {
    const timespec times[2] = {{0, UTIME_OMIT}, {::time(nullptr) - seconds, ns}};
    ASSERT_EQ(::utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  };
  keep(7'000'000'123);
  age(10, 5);
  EXPECT_FALSE(find(7'000'000'123).empty());
  EXPECT_EQ(nanoseconds(), 5) << "perhaps not on the disk yet";
  age(100, 5);
  EXPECT_FALSE(find(7'000'000'123).empty());
  EXPECT_EQ(nanoseconds(), 123);
  std::string flipped = contents();
  char& last = flipped[flipped.size() - std::strlen(kSource) - 1];
  last = char(last ^ 1);
  write(flipped);
  EXPECT_TRUE(find(7'000'000'123).empty()) << "written to";
  age(100, 123);
  EXPECT_FALSE(find(7'000'000'123).empty()) << "nobody looks, as the time says that it is right";
}

TEST_F(PackedFiles, AnUnwritableFolderOrAFullDiskGivesNothingAndLeavesNothing) {
  EXPECT_TRUE(PackedFile::create((folder_ / "absent" / "model.r16").string(), parts_, kSource).empty());
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_TRUE(PackedFile::create(path_, parts_, kSource).empty());
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(files(), 0u);
}

TEST_F(PackedFiles, SaysOfWhichModelItIs) {
  keep(7);
  EXPECT_EQ(PackedFile::source_of(path_), kSource);
  write("PLUMB");
  EXPECT_EQ(PackedFile::source_of(path_), std::nullopt);
  EXPECT_EQ(PackedFile::source_of((folder_ / "absent").string()), std::nullopt);
}

TEST_F(PackedFiles, IsUsedWhenItIsFound) {
  keep(7);
  const timespec times[2] = {{1000, 0}, {0, UTIME_OMIT}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  EXPECT_FALSE(find(7).empty());
  struct stat s = {};
  ::stat(path_.c_str(), &s);
  EXPECT_GE(s.st_atim.tv_sec, ::time(nullptr) - 60);
}

TEST_F(PackedFiles, WhatIsNotKeptLeavesNothing) {
  {
    const PackedFile f = PackedFile::create(path_, parts_, kSource);
  }
  EXPECT_EQ(files(), 0u);
}

TEST_F(PackedFiles, TwoWritersAtOnceLeaveOneWholeFile) {
  std::thread other([&] {
    for (int i = 0; i < 50; ++i) {
      Pool pool(1);
      PackedFile f = PackedFile::create(path_, parts_, kSource);
      std::memset(f.data(), 5, size_t(kBytes));
      f.keep(7, parts_, pool);
    }
  });
  for (int i = 0; i < 50; ++i) {
    PackedFile f = PackedFile::create(path_, parts_, kSource);
    std::memset(f.data(), 5, size_t(kBytes));
    f.keep(7, parts_, pool_);
    EXPECT_FALSE(find(7).empty());
  }
  other.join();
  EXPECT_EQ(files(), 1u);
}

}  // namespace
}  // namespace plumb
