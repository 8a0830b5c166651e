// plumb perplexity: how well a model predicts a text; with --kl-divergence, how far its probabilities lie
// from those that another run kept with --kl-divergence-base.
#include "engine/perplexity.h"

#include <fmt/format.h>

#include <cmath>

#include "app/command.h"
#include "app/flags.h"
#include "app/mpi_flag.h"
#include "app/progress.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/logit_base.h"

namespace plumb {
namespace {

struct PerplexityOptions {
  ModelFlags model;
  std::string file, base;
  int n_ctx = 512, chunks = -1;
  bool compare = false;
  MpiFlag mpi;
  Comm* comm = nullptr;
};

constexpr int64_t kMostText = int64_t(1) << 30;

int bos_of(const Model& model) { return model.tokenizer().adds_bos() ? model.tokenizer().bos() : -1; }

std::vector<std::vector<int>> chunks_of_text(const PerplexityOptions& o, const Model& model) {
  const std::string text = read_file(o.file, kMostText);
  return cut_text(model.tokenizer().encode(text), o.n_ctx, o.chunks);
}

RunnerOptions runner_options(const PerplexityOptions& o, int n_ctx) {
  RunnerOptions options = o.model.runner(&interrupt_flag());
  options.n_ctx = n_ctx, options.comm = o.comm;
  return options;
}

// Running values, as llama-perplexity shows them, and what stands at the end.
void show_running(size_t chunk, double perplexity, bool last) {
  fmt::print(stderr, "[{}]{:.4f}{}", chunk + 1, perplexity, last ? "\n" : ",");
  std::fflush(stderr);
}

std::string plus_minus(double value, double error) { return fmt::format("{:.6g} +/- {:.3g}", value, error); }

void measure(const PerplexityOptions& o, const Model& model, ProgressBar& bar) {
  const std::vector<std::vector<int>> chunks = chunks_of_text(o, model);
  const int bos = bos_of(model);
  Mean loss;
  const auto score = [&](const std::function<void(std::span<const double>)>& keep) {
    for (size_t c = 0; c < chunks.size(); ++c) {
      score_chunk(model, runner_options(o, o.n_ctx), chunks[c], bos,
                  [&](int64_t position, std::span<const double> row) {
                    const int token = chunks[c][size_t(position) + 1];
                    loss.add(log_sum_exp(model.pool(), row) - row[size_t(token)]);
                    if (keep) keep(row);
                  });
      bar.erase();
      show_running(c, std::exp(loss.mean()), c + 1 == chunks.size());
    }
  };
  if (o.base.empty()) {
    score(nullptr);
  } else {
    write_logit_base(o.base, o.n_ctx, model.n_vocab(), chunks, score);
  }
  const double perplexity = std::exp(loss.mean());
  print_out(fmt::format("Final estimate: PPL = {:.4f} +/- {:.5f}\n", perplexity, perplexity * loss.error()));
}

void check_base(const PerplexityOptions& o, const Model& model, const LogitBase& base) {
  if (base.n_vocab() == model.n_vocab()) return;
  throw Error({.code = "base.vocabulary",
               .expected = fmt::format("rows of {} logits, as the model has tokens", model.n_vocab()),
               .found = std::to_string(base.n_vocab()),
               .where = {.file = o.base, .offset = 12}});
}

void report(const Divergence& d) {
  const auto line = [](const char* what, const std::string& value) {
    print_out(fmt::format("{:<28}: {}\n", what, value));
  };
  const auto perplexity = [](const Mean& loss) {
    const double ppl = std::exp(loss.mean());
    return plus_minus(ppl, ppl * loss.error());
  };
  const double ratio = std::exp(d.difference().mean()), moved = std::sqrt(d.moved_squared().mean());
  print_out(fmt::format("====== {} positions ======\n", d.divergence().count()));
  line("Mean PPL(base)", perplexity(d.base_loss()));
  line("Mean PPL(Q)", perplexity(d.loss()));
  line("Mean PPL(Q)/PPL(base)", plus_minus(ratio, ratio * d.difference().error()));
  line("Mean KLD", plus_minus(d.divergence().mean(), d.divergence().error()));
  for (double share : {1.0, 0.999, 0.99, 0.9, 0.5}) {
    const std::string name = share == 1    ? "Maximum KLD"
                             : share == .5 ? "Median  KLD"
                                           : fmt::format("{:.1f}%   KLD", share * 100);
    line(name.c_str(), fmt::format("{:.6g}", d.percentile(share)));
  }
  // The standard error of a square root is that of its square over twice itself.
  line("RMS of the token's dp",
       plus_minus(100 * moved, moved > 0 ? 100 * d.moved_squared().error() / (2 * moved) : 0) + " %");
  line("Same top p", plus_minus(100 * d.same_top().mean(), 100 * d.same_top().error()) + " %");
}

void compare(const PerplexityOptions& o, const Model& model, ProgressBar& bar) {
  const LogitBase base(o.base);
  check_base(o, model, base);
  const int chunks = o.chunks < 0 ? base.chunks() : std::min(o.chunks, base.chunks());
  Divergence divergence;
  std::vector<double> expected, found;
  const auto normalise = [&](std::vector<double>& row) {
    const double sum = log_sum_exp(model.pool(), row);
    for (double& x : row) x -= sum;
  };
  for (int c = 0; c < chunks; ++c) {
    const std::vector<int> tokens = base.tokens(c);
    score_chunk(model, runner_options(o, base.n_ctx()), tokens, bos_of(model),
                [&](int64_t position, std::span<const double> row) {
                  base.read(c, int(position) - first_scored(base.n_ctx()), expected);
                  found.assign(row.begin(), row.end());
                  normalise(expected), normalise(found);
                  divergence.add(model.pool(), expected, found, tokens[size_t(position) + 1]);
                });
    bar.erase();
    show_running(size_t(c), std::exp(divergence.loss().mean()), c + 1 == chunks);
  }
  report(divergence);
}

void run(const PerplexityOptions& o) {
  if (o.compare ? o.base.empty() : o.file.empty()) {
    throw Error({.code = "usage.perplexity",
                 .expected = o.compare ? "--kl-divergence-base FILE, written by a run without --kl-divergence"
                                       : "a text, -f FILE",
                 .found = "none"});
  }
  catch_interrupt();
  ProgressBar bar;
  Model model(o.model.path(), o.model.options(bar.callback()));
  share_model(model, o.model, o.comm);
  o.compare ? compare(o, model, bar) : measure(o, model, bar);
  flush_out();
}

}  // namespace

void add_perplexity(CLI::App& root) {
  CLI::App* c =
      root.add_subcommand("perplexity", "How well a model predicts a text; how far two runs are apart");
  auto o = std::make_shared<PerplexityOptions>();
  o->model.add(c);
  flag(c, "-f,--file", o->file, "The text: any file");
  c->remove_option(c->get_option("--ctx-size"));
  flag(c, "-c,--ctx-size", o->n_ctx, "Tokens per chunk")
      ->check(CLI::Range(4, 1 << 20))
      ->capture_default_str();
  flag(c, "--chunks", o->chunks, "Chunks at most; -1: all")
      ->check(CLI::Range(-1, 1 << 20))
      ->capture_default_str();
  flag(c, "--kl-divergence-base", o->base, "Keep all logits in this file; with --kl-divergence: read them");
  flag(c, "--kl-divergence", o->compare, "Compare with the base, whose text is read again");
  o->mpi.add(c);
  c->callback([o] {
    o->mpi.run(o->model, [&](Comm* comm) {
      o->comm = comm;
      run(*o);
    });
  });
}

}  // namespace plumb
