#include "chat/complete.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace plumb {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

TEST(Complete, CommandsByTheirBeginning) {
  EXPECT_THAT(complete("/s", {}, nullptr).candidates,
              ElementsAre("/save", "/set", "/show", "/stats", "/system"));
  EXPECT_THAT(complete("/sa", {}, nullptr).candidates, ElementsAre("/save"));
  EXPECT_THAT(complete("/xyz", {}, nullptr).candidates, IsEmpty());
  EXPECT_THAT(complete("hello", {}, nullptr).candidates, IsEmpty());
}

TEST(Complete, WordsThatACommandTakes) {
  EXPECT_THAT(complete("/show s", {}, nullptr).candidates, ElementsAre("sampling"));
  const std::vector<std::string> settings = {"top_k", "top_p", "seed"};
  const Completions c = complete("/set top", settings, nullptr);
  EXPECT_EQ(c.begin, 5u);
  EXPECT_THAT(c.candidates, ElementsAre("top_k", "top_p"));
}

TEST(Complete, FileNamesAlsoWithBlanksAndBelowTheHome) {
  std::string home = (fs::temp_directory_path() / "plumb-complete-XXXXXX").string();
  ASSERT_NE(::mkdtemp(home.data()), nullptr);
  fs::create_directory(home + "/talks");
  std::ofstream(home + "/talk one.json") << "x";
  std::ofstream(home + "/.hidden") << "x";
  EXPECT_THAT(complete("/load ~/ta", {}, home.c_str()).candidates,
              ElementsAre("~/talk one.json", "~/talks/"));
  EXPECT_THAT(complete("/save " + home + "/", {}, nullptr).candidates,
              ElementsAre(home + "/talk one.json", home + "/talks/"));
  EXPECT_THAT(complete("/load ~/.h", {}, home.c_str()).candidates, ElementsAre("~/.hidden"));
  const Completions message = complete("look at ~/talk\\", {}, home.c_str());
  EXPECT_EQ(message.begin, 8u);
  EXPECT_THAT(complete("look at ~/tal", {}, home.c_str()).candidates,
              ElementsAre("~/talk one.json", "~/talks/"));
  EXPECT_THAT(complete("/load /no/such/folder/", {}, nullptr).candidates, IsEmpty());
  fs::remove_all(home);
}

TEST(Complete, TheCommonPrefixIsWhatAllBeginWith) {
  EXPECT_EQ(common_prefix(std::vector<std::string>{"talk one", "talks"}), "talk");
  EXPECT_EQ(common_prefix(std::vector<std::string>{"a", "b"}), "");
  EXPECT_EQ(common_prefix({}), "");
}

}  // namespace
}  // namespace plumb
