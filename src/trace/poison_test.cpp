// A file that carries a fault makes a right engine compute what the fault computes; a file that undoes it
// makes the faulty engine right.
#include "trace/poison.h"

#include <gtest/gtest.h>

#include "trace/faults_test_support.h"

namespace plumb::trace {
namespace {

using testing::Seen;

constexpr double kRounding = 1e-4;  // of changed weights to f32, amplified by three layers

struct Written {
  Written()
      : path((std::filesystem::temp_directory_path() / ("plumb_poison_" + std::to_string(::getpid())))
                 .string()) {}
  ~Written() { std::filesystem::remove(path); }
  std::string path;
};

std::vector<Seen> logits(const Model& model, const Variant& v) {
  return testing::run_all(v, model.pool(), true);
}

// A file may carry the fault on other models only.
bool can_write(const Edit& edit, const Model& model, const ChosenFault& chosen) {
  Variant v = right_variant(model);
  return edit(v, chosen.parameter).empty();
}

// Calls what(fault, model, right logits) for each numerical fault and each model that it can be in.
template <class F>
void for_each_pair(const F& what) {
  for (const auto& [name, options] : testing::tiny_models()) {
    const testing::TinyFile file(options);
    const Model model(file.path(), {});
    const std::vector<Seen> right = logits(model, right_variant(model));
    for (const Fault& f : catalogue()) {
      if (testing::concerns(f, options) && applies(f, model)) what(f, name, model, right);
    }
  }
}

TEST(Poison, MakesARightEngineComputeWhatTheFaultComputes) {
  std::set<std::string> tried;
  for_each_pair([&](const Fault& f, const std::string& name, const Model& model, const std::vector<Seen>&) {
    if (!f.poison) return;
    const Written file;
    const ChosenFault chosen{&f, f.parameter.usual};
    if (!can_write(f.poison, model, chosen)) return;
    write_poison(model.file(), model.program(), chosen, file.path);
    const Model poisoned(file.path, {});
    EXPECT_LT(testing::relative_error(logits(model, vary(model, std::span(&chosen, 1))),
                                      logits(poisoned, right_variant(poisoned))),
              kRounding)
        << full_name(f) << " on " << name;
    tried.insert(f.id);
  });
  EXPECT_GE(tried.size(), 60u);
}

TEST(Poison, AntidotesMakeTheFaultyEngineRight) {
  std::set<std::string> tried;
  for_each_pair([&](const Fault& f, const std::string& name, const Model& model,
                    const std::vector<Seen>& right) {
    if (!f.antidote) return;
    const Written file;
    const ChosenFault chosen{&f, f.parameter.usual};
    if (!can_write(f.antidote, model, chosen)) return;
    write_antidote(model.file(), model.program(), chosen, file.path);
    const Model cured(file.path, {});
    EXPECT_LT(testing::relative_error(right, logits(cured, vary(cured, std::span(&chosen, 1)))), kRounding)
        << full_name(f) << " on " << name;
    tried.insert(f.id);
  });
  EXPECT_GE(tried.size(), 30u);
}

TEST(Poison, KeepsTheFormatOfBlocksThatCanHoldTheFault) {
  const testing::TinyFile tiny(testing::tiny_models().at("llama Q4_K"));
  const Model model(tiny.path(), {});
  const Written file;
  write_poison(model.file(), model.program(), choose_faults("B12")[0], file.path);
  EXPECT_EQ(Gguf::open(file.path).find_tensor("blk.0.attn_q.weight")->format, Format::Q4_K);
  write_poison(model.file(), model.program(), choose_faults("A1")[0], file.path, {.format = Format::Q8_0});
  EXPECT_EQ(Gguf::open(file.path).find_tensor("blk.0.attn_q.weight")->format, Format::Q8_0);
}

TEST(Poison, IsRefusedWhereNoFileCanCarryTheFaultOrTheModelCannotHaveIt) {
  const testing::TinyFile tiny({.arch = "llama"});
  const Model model(tiny.path(), {});
  const auto code = [&](const char* id) {
    return testing::code_of(
        [&] { write_poison(model.file(), model.program(), choose_faults(id)[0], "/nowhere/file"); });
  };
  EXPECT_EQ(code("G6"), "fault.no_file");
  EXPECT_EQ(code("B1"), "fault.applies");
  EXPECT_EQ(code("A1"), "file.write");
}

}  // namespace
}  // namespace plumb::trace
