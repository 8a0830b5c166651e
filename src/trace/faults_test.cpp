// Every fault of the catalogue changes its declared first value and nothing before it; controls change
// nothing beyond the floor; the planner refuses what only the reference computes.
#include "trace/faults.h"

#include <gtest/gtest.h>

#include <set>

#include "plan/plan.h"
#include "trace/faults_test_support.h"

namespace plumb::trace {
namespace {

using testing::first_difference;
using testing::Seen;

TEST(FaultCatalogue, HasEveryIdOnceWithAStoryAReferenceAndKnownEquivalents) {
  std::set<std::string> ids, names;
  int numerical = 0;
  for (const Fault& f : catalogue()) {
    EXPECT_TRUE(ids.insert(f.id).second) << f.id;
    EXPECT_TRUE(names.insert(f.name).second) << f.id << " " << f.name;
    EXPECT_TRUE(f.story.ends_with('.') && !f.references.empty() && f.edit) << f.id;
    EXPECT_STRNE(family_name(f.id[0]), "") << f.id;
    EXPECT_TRUE(!f.first.empty() || f.control || !testing::is_numerical(f)) << f.id;
    EXPECT_TRUE(!f.parameter.name ||
                (f.parameter.low <= f.parameter.usual && f.parameter.usual <= f.parameter.high))
        << f.id;
    numerical += testing::is_numerical(f) && !f.control;
  }
  for (const Fault& f : catalogue()) {
    for (size_t at = 0; at < f.equivalent.size();) {
      const size_t end = std::min(f.equivalent.find(' ', at), f.equivalent.size());
      EXPECT_TRUE(ids.count(f.equivalent.substr(at, end - at))) << f.id << ": " << f.equivalent;
      at = end + 1;
    }
  }
  EXPECT_GE(numerical, 110);
}

TEST(FaultCatalogue, ListsAreReadWithNamesAndParametersAndRefusedOtherwise) {
  const std::vector<ChosenFault> chosen = choose_faults("F1,D1=1e-4,G6-no-causal-mask");
  ASSERT_EQ(chosen.size(), 3u);
  EXPECT_EQ(chosen[0].fault->id, "F1");
  EXPECT_EQ(chosen[1].parameter, 1e-4);
  EXPECT_EQ(chosen[2].fault->id, "G6");
  for (const char* wrong : {"", "X1", "F1,", "F1=2", "D1=", "D1=1e9", "D1=nan", "D1=1e-4x"})
    EXPECT_EQ(testing::code_of([&] { choose_faults(wrong); }), "usage.fault") << wrong;
}

// What the fault does to the model, in words; empty: what it says.
std::string complaint(const Fault& f, const Model& model, const std::vector<Seen>& right, double parameter,
                      bool* shows) {
  const ChosenFault chosen{&f, parameter};
  const Variant v = vary(model, std::span(&chosen, 1));
  const std::vector<Seen> wrong = testing::run_all(v, model.pool());
  const Seen* first = first_difference(right, wrong);
  if (!first) return f.control || !f.needs.empty() ? "" : "changes nothing";
  *shows = true;
  const std::string at = short_name(first->value);
  const bool named =
      f.first == "@weights" ? at == testing::first_with_changed_weight(v.program) : listed(f.first, at);
  if (f.control || (named && first->call == f.step)) return "";
  return "first changes " + first->value + " in call " + std::to_string(first->call);
}

TEST(Faults, ChangeTheirFirstValueAndNothingBeforeIt) {
  std::set<std::string> shown;
  for (const auto& [name, options] : testing::tiny_models()) {
    const testing::TinyFile file(options);
    const Model model(file.path(), {});
    const std::vector<Seen> right = testing::run_all(right_variant(model), model.pool());
    for (const Fault& f : catalogue()) {
      if (!testing::concerns(f, options) || !applies(f, model)) continue;
      bool shows = false;
      EXPECT_EQ(complaint(f, model, right, f.parameter.usual, &shows), "") << full_name(f) << " on " << name;
      if (!shows && f.parameter.name) complaint(f, model, right, f.parameter.low, &shows);
      if (shows) shown.insert(f.id);
    }
  }
  std::string silent;
  for (const Fault& f : catalogue()) {
    if (testing::is_numerical(f) && !f.control && !shown.count(f.id)) silent += f.id + " ";
  }
  EXPECT_EQ(silent, "B22b ") << "IQ2 and IQ3 have no encoder here";
}

TEST(Faults, ControlsChangeNoLogitBeyondTheFloorOfTheirFormat) {
  const std::map<std::string, double> bounds = {{"M3", 0.01}, {"M3b", 0.1}, {"N1", 1e-3},  {"N3", 0.1},
                                                {"N4", 1e-6}, {"N5", 0},    {"N6", 1e-12}, {"N7", 1e-12},
                                                {"N8", 0.01}, {"N9", 0.02}};
  for (const char* arch : {"llama", "qwen2", "qwen3", "gemma3"}) {
    const testing::TinyFile file(testing::tiny_models().at(arch));
    const Model model(file.path(), {});
    const std::vector<Seen> right = testing::run_all(right_variant(model), model.pool(), true);
    for (const Fault& f : catalogue()) {
      if (!f.control || !applies(f, model)) continue;
      const Fault* one = &f;
      std::vector<Seen> other = testing::run_all(vary(model, std::span(&one, 1)), model.pool(), true);
      if (f.id == "J5") {
        for (Seen& s : other) {
          for (double& x : s.rows) x -= f.parameter.usual;
        }
      }
      EXPECT_LE(testing::relative_error(right, other), f.id == "J5" ? 1e-12 : bounds.at(f.id))
          << f.id << " on " << arch;
    }
  }
}

TEST(Faults, AreRefusedByThePlannerWhereOnlyTheReferenceComputesThem) {
  const testing::TinyFile file(testing::tiny_models().at("llama"));
  const Model model(file.path(), {});
  for (const Fault& f : catalogue()) {
    if (!testing::is_numerical(f) || !applies(f, model)) continue;
    const Fault* one = &f;
    const Variant v = vary(model, std::span(&one, 1));
    if (fault_field(v.program).empty()) continue;  // a right Program of another model
    EXPECT_EQ(testing::code_of([&] { make_plan(v.program, {.max_tokens = 4}); }), "plan.fault_field") << f.id;
  }
}

TEST(Faults, OfRusTorchBuildOnEachOtherInEitherOrder) {
  const testing::TinyFile file(testing::tiny_models().at("llama Q6_K"));
  const Model model(file.path(), {});
  const auto logits = [&](const char* list) {
    return testing::run_all(vary(model, choose_faults(list)), model.pool(), true);
  };
  const std::vector<Seen> both = logits("A1,B15");
  EXPECT_EQ(testing::relative_error(both, logits("B15,A1")), 0);
  EXPECT_GT(testing::relative_error(both, logits("A1")), 1e-3);
  EXPECT_GT(testing::relative_error(both, logits("B15")), 1e-3);
}

}  // namespace
}  // namespace plumb::trace
