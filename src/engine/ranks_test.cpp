// A model shared by several ranks, here threads, has the bits of one rank: plans on the CPU and the
// reference, in every architecture.
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "engine/cpu_runner.h"
#include "engine/test_support.h"
#include "plan/split.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::same_bits;
using testing::TinyFile;

constexpr const char* kEveryArch[] = {"llama", "qwen2", "qwen3", "gemma3"};

// Calls lead(model, options) as rank 0; the others follow.
void on_ranks(const std::string& path, int ranks, const RunnerOptions& asked,
              const std::function<void(const Model&, const RunnerOptions&)>& lead,
              const std::string& wanted = {}) {
  const ThreadComms comms(ranks);
  const auto load = [&](int rank) {
    auto model = std::make_unique<Model>(path, ModelOptions{.threads = 1 + rank % 2});
    std::set<Value> values;
    if (!wanted.empty()) values.insert(model->program().find(wanted));
    model->run_as_rank(rank, ranks, values);
    return model;
  };
  const auto with_comm = [&](int rank) {
    RunnerOptions options = asked;
    options.comm = &comms.of(rank);
    return options;
  };
  std::vector<std::thread> others;
  for (int r = 1; r < ranks; ++r) {
    others.emplace_back([&, r] { follow_first_rank(*load(r), with_comm(r)); });
  }
  lead(*load(0), with_comm(0));
  dismiss_ranks(comms.of(0));
  for (std::thread& t : others) t.join();
}

// Logits after a prompt and after each of two more ids.
std::vector<float> logits_of(const Model& model, const RunnerOptions& options) {
  const auto runner = Runner::make(model, options);
  std::vector<float> all;
  for (const std::vector<int>& ids : {prompt(11), prompt(1, 5), prompt(1, 6)}) {
    const std::span<const float> l = runner->decode(ids);
    all.insert(all.end(), l.begin(), l.end());
  }
  return all;
}

TEST(Ranks, HaveTheLogitsOfOneInEveryArchitectureRoundingAndNumber) {
  for (const char* arch : kEveryArch) {
    const TinyFile file({.arch = arch, .format = Format::Q4_0, .n_head_kv = 4});
    const Model alone(file.path(), {.threads = 2});
    for (Rounding rounding : {Rounding::int8, Rounding::refined, Rounding::int16}) {
      for (bool fuse : {true, false}) {
        const RunnerOptions options{.n_ubatch = 4, .rounding = rounding, .fuse = fuse};
        const std::vector<float> want = logits_of(alone, options);
        for (int ranks = 1; ranks <= 4; ++ranks) {
          on_ranks(file.path(), ranks, options, [&](const Model& model, const RunnerOptions& o) {
            EXPECT_TRUE(same_bits(logits_of(model, o), want)) << arch << " on " << ranks;
          });
        }
      }
    }
  }
}

TEST(Ranks, InEveryFormatOfWeightsAndWithUnevenParts) {
  for (Format format : {Format::F32, Format::Q8_0, Format::Q4_K, Format::IQ4_NL}) {
    const bool large = format == Format::Q4_K;  // its rows have 256 columns
    const TinyFile file(
        {.format = format, .n_vocab_out = 50, .width = large ? 256 : 64, .n_head_kv = 4, .encoded = large});
    const Model alone(file.path(), {.threads = 1});
    const std::vector<float> want = logits_of(alone, {});
    on_ranks(file.path(), 3, {}, [&](const Model& model, const RunnerOptions& o) {
      EXPECT_TRUE(same_bits(logits_of(model, o), want)) << info(format).name;
    });
  }
}

TEST(Ranks, AnObservedPartIsShownWhole) {
  const TinyFile file({.arch = "qwen3", .format = Format::Q8_0});
  const Model alone(file.path(), {.threads = 1});
  for (const char* name : {"blk.1.attn_k", "blk.2.ffn_act", "blk.0.attn_norm"}) {
    std::vector<std::vector<double>> want;
    Runner::make(alone, {})->observe(
        prompt(5), alone.program().find(name), true,
        [&](int64_t, std::span<const double> row) { want.emplace_back(row.begin(), row.end()); });
    on_ranks(
        file.path(), 2, {},
        [&](const Model& model, const RunnerOptions& o) {
          size_t at = 0;
          Runner::make(model, o)->observe(
              prompt(5), model.program().find(name), true, [&](int64_t, std::span<const double> row) {
                EXPECT_EQ(std::vector<double>(row.begin(), row.end()), want.at(at++)) << name;
              });
          EXPECT_EQ(at, want.size());
        },
        name);
  }
}

TEST(Ranks, DraftsAndRunnersOneAfterTheOtherChangeNothing) {
  const TinyFile file({.format = Format::Q4_0});
  const Model alone(file.path(), {.threads = 1});
  const std::vector<float> want = logits_of(alone, {});
  on_ranks(file.path(), 2, {.draft = 4}, [&](const Model& model, const RunnerOptions& o) {
    for (int round = 0; round < 2; ++round) EXPECT_TRUE(same_bits(logits_of(model, o), want)) << round;
  });
}

TEST(Ranks, OfTheReferenceHaveItsBits) {
  for (const char* arch : kEveryArch) {
    const TinyFile file({.arch = arch, .format = Format::Q8_0});
    const Model model(file.path(), {});
    const auto last_row = [&](const Program& p, Comm* comm) {
      Pool pool(1);
      Reference<double> reference(p, pool);
      reference.set_comm(comm);
      std::vector<double> out;
      for (const std::vector<int>& ids : {prompt(7), prompt(1, 3)}) {
        reference.run(ids, p.output, [&](Value v, std::span<const double> rows) {
          if (v == p.output) out.assign(rows.end() - p.shape(v).size(), rows.end());
        });
      }
      return out;
    };
    const std::vector<double> want = last_row(model.program(), nullptr);
    const ThreadComms comms(2);
    std::vector<std::thread> ranks;
    ranks.reserve(2);
    for (int r = 0; r < 2; ++r) {
      ranks.emplace_back([&, r] {
        const Program p = rank_program(model.program(), r, 2).program;
        EXPECT_EQ(last_row(p, &comms.of(r)), want) << arch << " rank " << r;
      });
    }
    for (std::thread& t : ranks) t.join();
  }
}

TEST(Ranks, MoreThanTheModelHasKvHeadsAreRefused) {
  const TinyFile file({});
  Model model(file.path(), {});
  EXPECT_EQ(code_of([&] { model.run_as_rank(0, 3, {}); }), "split.heads");
}

}  // namespace
}  // namespace plumb
