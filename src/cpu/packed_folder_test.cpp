// The folder of packed weights: what goes, what stays, and in which order.
#include "cpu/packed_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cpu/packed_file.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kData = 1 << 20;
constexpr int64_t kFile = kData + 8192;  // no packed file takes more on the disk

class PackedFolder : public ::testing::Test {
 protected:
  PackedFolder() { fs::create_directories(folder_); }
  ~PackedFolder() override { fs::remove_all(folder_); }

  // A packed file of about kFile bytes, used `age` seconds ago, whose model is there or not.
  std::string keep(const std::string& name, time_t age, bool model = true) {
    const std::string source = (folder_ / (name + ".gguf")).string();
    if (model) write(source);
    const std::string path = at(name);
    Pool pool(1);
    PackedFile f = PackedFile::create(path, {{0, kData}}, source);
    EXPECT_TRUE(f.keep(1, {{0, kData}}, pool));
    const timespec times[2] = {{::time(nullptr) - age, 0}, {0, UTIME_OMIT}};
    EXPECT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    return path;
  }
  void write(const fs::path& path, time_t age = 0) const {
    std::ofstream(path) << "text";
    const timespec times[2] = {{0, UTIME_OMIT}, {::time(nullptr) - age, 0}};
    EXPECT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  std::string at(const std::string& name) const { return (folder_ / (name + ".r16")).string(); }

  const fs::path folder_ = fs::temp_directory_path() / ("plumb_packed_folder_" + std::to_string(::getpid()));
};

TEST_F(PackedFolder, WithRoomForAllNothingGoes) {
  const std::string a = keep("a", 500), b = keep("b", 5);
  EXPECT_TRUE(make_packed_room(at("new"), kFile, 10 * kFile));
  EXPECT_TRUE(fs::exists(a) && fs::exists(b));
}

TEST_F(PackedFolder, TheLeastRecentlyUsedGoesFirstAndNoMoreThanNeeded) {
  const std::string a = keep("a", 5), b = keep("b", 500), c = keep("c", 50);
  EXPECT_TRUE(make_packed_room(at("new"), kFile, 4 * kFile)) << "seven without them: three may stay";
  EXPECT_TRUE(fs::exists(a) && fs::exists(c));
  EXPECT_FALSE(fs::exists(b));
}

TEST_F(PackedFolder, WhatIsTooLargeIsRefusedAndRemovesNothing) {
  const std::string a = keep("a", 5);
  EXPECT_FALSE(make_packed_room(at("new"), 6 * kFile, 10 * kFile));
  EXPECT_TRUE(fs::exists(a));
}

TEST_F(PackedFolder, FilesOfModelsThatAreGoneAndFilesNeverFinishedGoAlways) {
  const std::string gone = keep("gone", 5, false), here = keep("here", 500);
  write(folder_ / "x.gguf-1.r16.aB3dEf", 2 * 24 * 3600);
  write(folder_ / "y.gguf-1.r16.aB3dEf", 3600);
  EXPECT_TRUE(make_packed_room(at("new"), kFile, 100 * kFile));
  EXPECT_FALSE(fs::exists(gone));
  EXPECT_TRUE(fs::exists(here));
  EXPECT_FALSE(fs::exists(folder_ / "x.gguf-1.r16.aB3dEf"));
  EXPECT_TRUE(fs::exists(folder_ / "y.gguf-1.r16.aB3dEf")) << "perhaps being written";
}

TEST_F(PackedFolder, NothingElseIsTouched) {
  write(folder_ / "notes.txt", 9 * 24 * 3600);
  write(folder_ / "notes.txt.backup", 9 * 24 * 3600);
  write(folder_ / "mine.r16", 9 * 24 * 3600);
  const std::string own = keep("own", 9 * 24 * 3600);
  EXPECT_TRUE(make_packed_room(own, kFile, 2 * kFile));
  for (const char* name : {"notes.txt", "notes.txt.backup", "mine.r16", "own.r16"})
    EXPECT_TRUE(fs::exists(folder_ / name)) << name;
}

TEST_F(PackedFolder, AnAbsentFolderIsEmpty) {
  EXPECT_FALSE(make_packed_room((folder_ / "absent" / "new.r16").string(), 1));
}

}  // namespace
}  // namespace plumb
