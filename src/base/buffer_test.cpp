#include "base/buffer.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/file.h"

namespace plumb {
namespace {

// The line of /proc/self/smaps that starts with `key`, of the mapping that holds `address`.
std::string smaps(const void* address, const std::string& key) {
  std::ifstream file("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(file, line);) {
    unsigned long long first = 0, last = 0;
    if (std::sscanf(line.c_str(), "%llx-%llx ", &first, &last) == 2) {
      const auto at = reinterpret_cast<uintptr_t>(address);
      here = at >= first && at < last;
    }
    if (here && line.rfind(key, 0) == 0) return line.substr(key.size());
  }
  return "";
}
long resident(const void* address) { return std::atol(smaps(address, "Rss:").c_str()); }  // KiB
bool huge(const void* address) { return smaps(address, "VmFlags:").find(" hg") != std::string::npos; }

constexpr int64_t kBytes = 8 << 20;

TEST(Buffer, OfSmallPagesCostsWhatIsTouched) {
  const Buffer small(kBytes, Buffer::Pages::small), large(kBytes);
  if (!huge(large.data())) GTEST_SKIP() << "no huge pages here";
  EXPECT_FALSE(huge(small.data()));
  small.data()[kBytes / 2] = 1;
  EXPECT_LE(resident(small.data() + kBytes / 2), 64);
}

TEST(Buffer, LittleIsNotHuge) {
  const Buffer little(100);
  little.data()[99] = 1;
  EXPECT_FALSE(huge(little.data()));
}

TEST(ForgetPages, GivesBackWholePagesWhoseBytesAreReadAgain) {
  const std::string path = testing::TempDir() + "plumb_forget_pages";
  atomic_replace(path, std::string(size_t(kBytes), 'x'));
  const MappedFile file = MappedFile::open(path);
  const auto sum = [&] {
    int64_t s = 0;
    for (const uint8_t byte : file.bytes()) s += byte;
    return s;
  };
  EXPECT_EQ(sum(), kBytes * 'x');
  const long before = resident(file.bytes().data());
  forget_pages(file.bytes().subspan(1, 4096));  // no whole page
  EXPECT_EQ(resident(file.bytes().data()), before);
  forget_pages(file.bytes());
  EXPECT_EQ(resident(file.bytes().data()), 0);
  EXPECT_EQ(sum(), kBytes * 'x');
  forget_pages({});
  std::remove(path.c_str());
}

}  // namespace
}  // namespace plumb
