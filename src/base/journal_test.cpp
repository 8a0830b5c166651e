#include "base/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "base/error.h"
#include "base/file.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

class JournalTest : public ::testing::Test {
 protected:
  JournalTest() {
    std::string name = (fs::temp_directory_path() / "plumb-journal-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ + "/a.journal";
  }
  ~JournalTest() override { fs::remove_all(folder_); }

  std::string bytes() const { return read_file(path_, 1 << 20); }
  void write(std::string_view contents) const { atomic_replace(path_, contents); }

  std::string folder_, path_;
};

std::string journal_code(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.code();
  }
  return "";
}

TEST(Crc32c, EqualsTheVectorsOfRfc3720) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), crc32c("123456789"));
}

TEST_F(JournalTest, GivesBackWhatWasAppended) {
  {
    Journal j(path_);
    j.append("one");
    j.append("");
    j.append(std::string("t\0o", 3));
  }
  Journal j(path_);
  EXPECT_THAT(j.records(), ElementsAre("one", "", std::string("t\0o", 3)));
  j.append("four");
  EXPECT_EQ(read_journal(path_).records.size(), 4u);
  EXPECT_EQ(j.torn_bytes(), 0);
}

TEST_F(JournalTest, CutAtEveryByteItKeepsTheWholeRecordsAndTheTornBytes) {
  const std::vector<std::string> payloads = {"first", "second one", "3"};
  std::vector<size_t> ends = {8};  // where each record ends
  {
    Journal j(path_);
    for (const std::string& p : payloads) {
      j.append(p);
      ends.push_back(bytes().size());
    }
  }
  const std::string whole = bytes();
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    write(whole.substr(0, cut));
    fs::remove(path_ + ".torn");
    size_t kept = 0;
    while (kept < payloads.size() && ends[kept + 1] <= cut) ++kept;
    const size_t good = cut < 8 ? 0 : ends[kept];
    {
      Journal j(path_);
      ASSERT_EQ(j.records(), std::vector<std::string>(payloads.begin(), payloads.begin() + int64_t(kept)))
          << cut;
      ASSERT_EQ(j.torn_bytes(), int64_t(cut - good)) << cut;
      ASSERT_EQ(cut == good, !fs::exists(path_ + ".torn")) << cut;
      if (cut != good) {
        ASSERT_EQ(read_file(path_ + ".torn", 1 << 20), whole.substr(good, cut - good)) << cut;
      }
      j.append("next");
    }
    const JournalContents again = read_journal(path_);
    ASSERT_EQ(again.records.size(), kept + 1) << cut;
    ASSERT_EQ(again.records.back(), "next") << cut;
    ASSERT_EQ(again.torn_bytes, 0) << cut;
  }
}

TEST_F(JournalTest, RandomFlipsAndCutsLeaveAPrefixOfTheRecords) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> payloads;
    std::string file(kJournalMagic);
    // Built by hand: appending syncs the disk each time.
    for (size_t n = random() % 6; n > 0; --n) {
      std::string payload(random() % 40, 'x');
      for (char& c : payload) c = char(random());
      std::string head;
      for (int shift = 0; shift < 32; shift += 8) head += char(uint8_t(payload.size() >> shift));
      const uint32_t sum = crc32c(payload, crc32c(head));
      for (int shift = 0; shift < 32; shift += 8) head += char(uint8_t(sum >> shift));
      file += head + payload;
      payloads.push_back(payload);
    }
    if (random() % 2) file.resize(8 + random() % (file.size() - 7));
    size_t damaged = file.size();
    if (random() % 2 && file.size() > 8) {
      damaged = 8 + random() % (file.size() - 8);
      file[damaged] = char(file[damaged] ^ (1 << random() % 8));
    }
    const JournalContents found = parse_journal(file, "f");
    ASSERT_LE(found.records.size(), payloads.size());
    for (size_t i = 0; i < found.records.size(); ++i) ASSERT_EQ(found.records[i], payloads[i]) << round;
    ASSERT_LE(found.good_bytes, int64_t(damaged)) << round;  // a flip is always noticed
    ASSERT_EQ(found.good_bytes + found.torn_bytes, int64_t(file.size()));
  }
}

TEST_F(JournalTest, AnotherKindOfFileIsRefusedAndLeftAlone) {
  write("{\"messages\": []}");
  EXPECT_EQ(journal_code([&] { Journal j(path_); }), "journal.format");
  EXPECT_EQ(bytes(), "{\"messages\": []}");
}

TEST_F(JournalTest, BelongsToOneProcessAtATime) {
  Journal j(path_);
  EXPECT_EQ(journal_code([&] { Journal other(path_); }), "journal.used");
}

TEST_F(JournalTest, ARecordBeyondTheLimitIsRefused) {
  Journal j(path_);
  const size_t before = bytes().size();
  EXPECT_EQ(journal_code([&] { j.append(std::string((16 << 20) + 1, 'x')); }), "journal.too_large");
  EXPECT_EQ(bytes().size(), before);
}

TEST_F(JournalTest, AFullDiskLeavesTheFileAsItWas) {
  // The limit on file sizes stands in for the disk; it cannot be lifted, so it is a child's.
  const auto write_too_much = [&] {
    ::signal(SIGXFSZ, SIG_IGN);
    Journal j(path_);
    j.append("kept");
    const struct rlimit limit = {64, 64};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string code = journal_code([&] { j.append(std::string(100, 'x')); });
    std::_Exit(code == "journal.write" ? 3 : 4);
  };
  ASSERT_EXIT(write_too_much(), ::testing::ExitedWithCode(3), "");
  const JournalContents found = read_journal(path_);
  EXPECT_THAT(found.records, ElementsAre("kept"));
  EXPECT_EQ(found.torn_bytes, 0);
}

TEST_F(JournalTest, AKilledWriterLosesNothingItWasToldIsSafe) {
  for (int round = 0; round < 100; ++round) {
    fs::remove(path_);
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      Journal j(path_);
      for (uint32_t i = 0;; ++i) {
        j.append("record " + std::to_string(i) + std::string(i % 50 * 20, '.'));
        if (::write(pipe[1], &i, sizeof i) != sizeof i) std::_Exit(1);
      }
    }
    ::close(pipe[1]);
    uint32_t last = 0;
    for (uint32_t i = 0; i <= uint32_t(round) % 5; ++i) ASSERT_EQ(::read(pipe[0], &last, sizeof last), 4);
    ::usleep(unsigned(round) * 37 % 500);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (uint32_t more = 0; ::read(pipe[0], &more, sizeof more) == 4;) last = more;
    ::close(pipe[0]);
    Journal j(path_);
    ASSERT_GT(j.records().size(), last) << round;
    for (size_t i = 0; i < j.records().size(); ++i) {
      const std::string expected = "record " + std::to_string(i) + std::string(i % 50 * 20, '.');
      ASSERT_EQ(j.records()[i], expected) << round;
    }
  }
}

}  // namespace
}  // namespace plumb
