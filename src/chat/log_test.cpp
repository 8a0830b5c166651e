#include "chat/log.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

class LogTest : public ::testing::Test {
 protected:
  LogTest() {
    std::string name = (fs::temp_directory_path() / "plumb-log-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~LogTest() override { fs::remove_all(folder_); }

  size_t files() const {
    return size_t(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  std::string folder_;
};

History begun(int64_t time, const std::string& system = "") {
  History h;
  h.created = time;
  h.system = system;
  return h;
}

std::vector<ChatMessage> turn(const std::string& text) {
  return {{"user", text, 1}, {"assistant", "Answer.", 2}};
}

TEST_F(LogTest, AConversationWithoutAMessageLeavesNoFile) {
  ConversationLog log(folder_, "");
  log.start(begun(1000));
  log.system("x");
  EXPECT_EQ(files(), 0u);
  EXPECT_FALSE(log.last());
}

TEST_F(LogTest, TheLastConversationIsFoundAndGoesOnInItsFile) {
  {
    ConversationLog log(folder_, "");
    log.start(begun(1000, "old"));
    log.turn(turn("first"));
    log.start(begun(2000, "S"));
    log.turn(turn("a"));
    log.turn(turn("b"));
    log.turn({}, 2);
    log.system("T");
  }
  ConversationLog log(folder_, "");
  log.start(begun(3000));
  const auto found = log.last();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->history.system, "T");
  ASSERT_EQ(found->history.messages.size(), 2u);
  EXPECT_EQ(found->history.messages[0].content, "a");
  log.resume(*found);
  log.turn(turn("c"));
  EXPECT_EQ(files(), 2u);
  EXPECT_EQ(load_history(found->path).messages.size(), 4u);
}

TEST_F(LogTest, WhatAnotherProgramWritesIsNotTheLastConversation) {
  ConversationLog running(folder_, "");
  running.start(begun(2000));
  running.turn(turn("mine"));
  EXPECT_FALSE(ConversationLog(folder_, "").last());
}

TEST_F(LogTest, ATornRecordIsLeftOutAndSaid) {
  std::string path;
  {
    ConversationLog log(folder_, "");
    log.start(begun(1000));
    log.turn(turn("kept"));
    path = log.path();
  }
  std::ofstream(path, std::ios::app) << "half a record";
  const auto found = ConversationLog(folder_, "").last();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->torn_bytes, 13);
  EXPECT_EQ(found->history.messages.size(), 2u);
  EXPECT_TRUE(fs::exists(path + ".torn"));
}

TEST_F(LogTest, OneFileHoldsAllConversationsWhereItIsAskedFor) {
  const std::string file = folder_ + "/deep/all.journal";
  ConversationLog log("", file);
  log.start(begun(1000));
  log.turn(turn("a"));
  log.start(begun(2000));
  log.turn(turn("b"));
  EXPECT_EQ(load_history(file).messages.at(0).content, "b");
  EXPECT_EQ(files(), 1u);
}

TEST_F(LogTest, WhatTheDiskRefusedIsWrittenWithTheNextTurn) {
  const auto child = [&] {
    ::signal(SIGXFSZ, SIG_IGN);
    ConversationLog log(folder_, "");
    log.start(begun(1000));
    log.turn(turn("a"));
    const struct rlimit full = {16, RLIM_INFINITY}, free = {RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &full);
    bool refused = false;
    try {
      log.turn(turn("b"));
    } catch (const Error& e) {
      refused = e.code() == "journal.write";
    }
    ::setrlimit(RLIMIT_FSIZE, &free);
    log.turn(turn("c"));
    std::_Exit(refused ? 3 : 4);
  };
  ASSERT_EXIT(child(), ::testing::ExitedWithCode(3), "");
  const auto found = ConversationLog(folder_, "").last();
  ASSERT_TRUE(found);
  ASSERT_EQ(found->history.messages.size(), 6u);
  EXPECT_EQ(found->history.messages[2].content, "b");
  EXPECT_EQ(found->torn_bytes, 0);
}

TEST_F(LogTest, WithNeitherFolderNorFileNothingIsWritten) {
  ConversationLog log("", "");
  log.start(begun(1000));
  log.turn(turn("a"));
  EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace plumb
