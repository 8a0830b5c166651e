// plumb batched-bench: llama-batched-bench's tests: prompts of several sequences, then all of them answer
// together.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "app/bench_lists.h"
#include "app/command.h"
#include "app/flags.h"
#include "app/progress.h"
#include "base/json.h"
#include "engine/sequences.h"

namespace plumb {
namespace {

struct BatchedFlags {
  ModelFlags model;
  std::vector<std::string> prompts = {"128"}, answers = {"128"}, parallel = {"1,4,8,16"};
  std::string output = "md";
};

struct Row {
  int pp, tg, pl;
  double t_pp, t_tg;
};

class BatchedBench {
 public:
  BatchedBench(const Model& model, Sequences& sequences) : model_(model), sequences_(sequences) {}

  void warm_up() { tokens({0}, 16); }

  Row run(int pp, int tg, int pl) {
    std::vector<int> all;
    for (int i = 0; i < pl; ++i) all.push_back(i);
    for (int i = 0; i < sequences_.count(); ++i) sequences_.truncate(i, 0);
    Row row{pp, tg, pl, timed([&] { tokens(all, pp); }), 0};
    row.t_tg = timed([&] {
      for (int i = 0; i < tg; ++i) tokens(all, 1);
    });
    return row;
  }

 private:
  template <class F>
  static double timed(const F& f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // `n` random tokens for each sequence in one call; the logits of each one's last.
  void tokens(const std::vector<int>& sequences, int n) {
    if (n == 0) return;
    std::vector<int> ids(sequences.size() * size_t(n));
    for (int& id : ids) id = int(random_() % unsigned(model_.n_vocab()));
    std::vector<Sequences::Piece> pieces;
    for (size_t i = 0; i < sequences.size(); ++i)
      pieces.push_back({sequences[i], std::span(ids).subspan(i * size_t(n), size_t(n))});
    sequences_.decode(pieces, [](int, int64_t, std::span<const float>) {});
  }

  const Model& model_;
  Sequences& sequences_;
  std::minstd_rand random_{1};
};

std::string markdown(const Row& r) {
  const int prompt = r.pp * r.pl, answer = r.tg * r.pl;
  const auto rate = [](int n, double t) { return t > 0 ? n / t : 0; };
  return fmt::format(
      "|{:6} | {:6} | {:4} | {:6} | {:8.3f} | {:8.2f} | {:8.3f} | {:8.2f} | {:8.3f} | {:8.2f} |\n", r.pp,
      r.tg, r.pl, prompt + answer, r.t_pp, rate(prompt, r.t_pp), r.t_tg, rate(answer, r.t_tg),
      r.t_pp + r.t_tg, rate(prompt + answer, r.t_pp + r.t_tg));
}

std::string header() {
  std::string text =
      fmt::format("|{:>6} | {:>6} | {:>4} | {:>6} | {:>8} | {:>8} | {:>8} | {:>8} | {:>8} | {:>8} |\n", "PP",
                  "TG", "B", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s");
  return text +
         "|-------|--------|------|--------|----------|----------|----------|----------|----------|----------"
         "|\n";
}

std::string jsonl(const Row& r, int ubatch, int threads) {
  const int prompt = r.pp * r.pl, answer = r.tg * r.pl;
  Json j;
  j.set("n_ubatch", ubatch), j.set("n_threads", threads);
  j.set("pp", r.pp), j.set("tg", r.tg), j.set("pl", r.pl), j.set("n_kv", prompt + answer);
  j.set("t_pp", r.t_pp), j.set("speed_pp", prompt / r.t_pp);
  j.set("t_tg", r.t_tg), j.set("speed_tg", answer / r.t_tg);
  j.set("t", r.t_pp + r.t_tg), j.set("speed", (prompt + answer) / (r.t_pp + r.t_tg));
  return dump(j) + "\n";
}

void run(BatchedFlags& f) {
  const std::vector<int> prompts = parse_counts(f.prompts, "-npp", 1, 1 << 20),
                         answers = parse_counts(f.answers, "-ntg", 0, 1 << 20),
                         parallel = parse_counts(f.parallel, "-npl", 1, 256);
  const auto most = [](const std::vector<int>& x) { return *std::max_element(x.begin(), x.end()); };
  f.model.ctx_size = std::max(16, most(prompts) + most(answers));
  catch_interrupt();
  ProgressBar bar;
  const Model model(f.model.path(), f.model.options(bar.callback()));
  const RunnerOptions options = f.model.runner(&interrupt_flag());
  Sequences sequences(model, options, most(parallel));
  BatchedBench bench(model, sequences);
  bench.warm_up();
  bar.erase();
  if (f.output == "md") print_out(header());
  for (int pp : prompts) {
    for (int tg : answers) {
      for (int pl : parallel) {
        const Row row = bench.run(pp, tg, pl);
        print_out(f.output == "md" ? markdown(row) : jsonl(row, options.n_ubatch, model.pool().threads()));
        flush_out();
      }
    }
  }
}

}  // namespace

void add_batched_bench(CLI::App& root) {
  CLI::App* c =
      root.add_subcommand("batched-bench", "Tokens per second of several sequences that answer together");
  auto o = std::make_shared<BatchedFlags>();
  flag(c, "-m,--model", o->model.model, "Model file (GGUF)");
  flag(c, "--models-dir", o->model.models_dir, "Model folder");
  flag(c, "--n-pp", o->prompts, "Prompt lengths: 128, or 128,512 (-npp)")
      ->allow_extra_args(false)
      ->capture_default_str();
  flag(c, "--n-tg", o->answers, "Answer lengths (-ntg)")->allow_extra_args(false)->capture_default_str();
  flag(c, "--n-pl", o->parallel, "Numbers of sequences (-npl)")
      ->allow_extra_args(false)
      ->capture_default_str();
  flag(c, "-t,--threads", o->model.threads, "Threads; 0: one per core")->check(CLI::Range(0, 1024));
  flag(c, "--ubatch-size", o->model.ubatch_size, kUbatchHelp)
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  flag(c, "--cache-type-k", o->model.cache_type_k, "Type of cached keys (-ctk)")->capture_default_str();
  flag(c, "--cache-type-v", o->model.cache_type_v, "Type of cached values (-ctv)")->capture_default_str();
  o->model.add_backend(c);
  o->model.add_cpu(c);
  flag(c, "-o,--output-format", o->output, "md or jsonl")
      ->check(CLI::IsMember({"md", "jsonl"}))
      ->capture_default_str();
  c->callback([o] { run(*o); });
}

}  // namespace plumb
