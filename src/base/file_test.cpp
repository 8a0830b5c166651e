#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <stdexcept>

#include "base/error.h"

namespace plumb {
namespace {

std::span<const uint8_t> as_bytes(std::string_view s) {
  return {reinterpret_cast<const uint8_t*>(s.data()), s.size()};
}

std::string code_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_FALSE(e.expected().empty() || e.found().empty()) << e.what();
    return e.code();
  }
  return "";
}

class File : public ::testing::Test {
 protected:
  File() {
    std::string name = (std::filesystem::temp_directory_path() / "plumb_file.XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ + "/f";
  }
  ~File() override { std::filesystem::remove_all(folder_); }

  int files() const {
    int n = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_)) ++n;
    return n;
  }

  std::string folder_;
  std::string path_;
};

TEST_F(File, WhatIsWrittenIsReadAndMappedAgain) {
  const std::string text("a\0b\n", 4);
  atomic_replace(path_, text);
  EXPECT_EQ(read_file(path_, 4), text);
  const MappedFile m = MappedFile::open(path_);
  EXPECT_EQ(std::string(m.bytes().begin(), m.bytes().end()), text);
}

TEST_F(File, AMapMovesWithItsBytes) {
  atomic_replace(path_, std::string_view("abc"));
  MappedFile a = MappedFile::open(path_);
  MappedFile b = std::move(a);
  EXPECT_EQ(b.bytes().size(), 3u);
  MappedFile c;
  c = std::move(b);
  EXPECT_EQ(c.bytes()[2], 'c');
}

TEST_F(File, AnEmptyFileMapsToNothing) {
  atomic_replace(path_, std::string_view());
  EXPECT_TRUE(MappedFile::open(path_).bytes().empty());
  EXPECT_EQ(read_file(path_, 0), "");
}

TEST_F(File, AbsentFilesFoldersAndDevicesAreRefused) {
  EXPECT_EQ(code_of([&] { MappedFile::open(path_); }), "file.open");
  EXPECT_EQ(code_of([&] { read_file(path_, 1); }), "file.open");
  EXPECT_EQ(code_of([&] { MappedFile::open(folder_); }), "file.open");
  EXPECT_EQ(code_of([&] { MappedFile::open("/dev/null"); }), "file.open");
  EXPECT_EQ(code_of([&] { read_file(folder_, 1); }), "file.read");
}

TEST_F(File, ReadFileStopsAtItsLimit) {
  atomic_replace(path_, std::string(100'000, 'x'));
  EXPECT_EQ(read_file(path_, 100'000).size(), 100'000u);
  EXPECT_EQ(code_of([&] { read_file(path_, 99'999); }), "file.too_large");
}

TEST_F(File, ReplacingKeepsTheOldFileWhenTheWriterFails) {
  atomic_replace(path_, std::string_view("old"));
  const auto half_then_fail = [](int fd) {
    write_all(fd, as_bytes("half"));
    throw std::runtime_error("no more");
  };
  EXPECT_THROW(atomic_replace(path_, half_then_fail), std::runtime_error);
  EXPECT_EQ(read_file(path_, 10), "old");
  EXPECT_EQ(files(), 1);
}

TEST_F(File, ReplacingNamesTheFileInErrorsOfTheWriter) {
  try {
    atomic_replace(path_, [](int) { throw Error({.code = "file.write", .expected = "a", .found = "b"}); });
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.where().file, path_);
  }
  EXPECT_EQ(files(), 0);
}

TEST_F(File, ReplacingLeavesOneFileWithTheUsualPermissions) {
  atomic_replace(path_, std::string_view("old"));
  atomic_replace(path_, std::string_view("new"));
  EXPECT_EQ(read_file(path_, 10), "new");
  EXPECT_EQ(files(), 1);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  struct stat s = {};
  ASSERT_EQ(::stat(path_.c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777u, 0666u & ~mask);
}

TEST_F(File, ReplacingInAFolderThatIsNotThereIsRefused) {
  EXPECT_EQ(code_of([&] { atomic_replace(folder_ + "/none/f", std::string_view("x")); }), "file.write");
}

TEST_F(File, AFullDiskIsAnError) {
  const int fd = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  if (fd < 0) GTEST_SKIP() << "no /dev/full here";
  EXPECT_EQ(code_of([&] { write_all(fd, as_bytes("x")); }), "file.write");
  ::close(fd);
}

}  // namespace
}  // namespace plumb
