// The Program and the Plan of a tiny model of each architecture, as text under tests/golden: a fusion rule
// that stops matching or an operation that moves is a diff to review. `./dev golden --accept` rewrites them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "engine/tiny_model.h"
#include "models/models.h"
#include "plan/plan.h"

namespace plumb {
namespace {

void compare(const std::string& name, const std::string& text) {
  const std::string path = std::string(PLUMB_GOLDEN) + "/" + name + ".txt";
  if (std::getenv("PLUMB_GOLDEN_ACCEPT")) {
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  std::stringstream stored;
  stored << std::ifstream(path, std::ios::binary).rdbuf();
  EXPECT_EQ(text, stored.str()) << path << " differs; if that is meant: ./dev golden --accept";
}

class GoldenOf : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenOf, ProgramAndPlanAreAsReviewed) {
  const std::string arch = GetParam();
  const std::vector<uint8_t> bytes = testing::TinyModel({.arch = arch, .format = Format::Q8_0}).bytes();
  const Gguf file = Gguf::parse(bytes, "tiny.gguf");
  const Program program = build_program(file);
  EXPECT_EQ(unused_tensors(file, program), std::vector<std::string>{});
  compare("program_" + arch, print(program));
  compare("plan_" + arch, print(make_plan(program, {.max_tokens = 4})));
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenOf, ::testing::Values("llama", "qwen2", "qwen3", "gemma3"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace plumb
