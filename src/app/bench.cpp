// plumb bench: llama-bench's tests and flags, and how far each rate is from what the machine allows.
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "app/bench_engine.h"
#include "app/bench_lists.h"
#include "app/bench_result.h"
#include "app/command.h"
#include "app/flags.h"
#include "app/progress.h"
#include "base/error.h"

namespace plumb {
namespace {

struct Flags {
  ModelFlags model;  // what all tests share
  std::vector<std::string> models, prompts = {"512"}, answers = {"128"}, pairs, depths = {"0"},
                                   batches = {"2048"}, ubatches = {"0"}, threads = {"0"};
  std::vector<std::string> types_k = {"f16"}, types_v = {"f16"};
  int repetitions = 5, delay = 0, probe_mib = 1024;
  bool no_warmup = false, no_probe = false, steps = false;
  std::string output = "md";
};

struct Test {
  int prompt = 0, answer = 0, depth = 0;
};

// Prints results as they come; a JSON list and the tables of steps end with the run.
class Printer {
 public:
  explicit Printer(std::string format) : format_(std::move(format)) {}

  void add(BenchResult r) {
    const bool first = results_.empty();
    if (format_ == "md") print_out((first ? markdown_header() : "") + markdown_line(r));
    if (format_ == "csv") print_out((first ? csv_header(r) : "") + csv_line(r));
    if (format_ == "jsonl") print_out(dump(to_json(r)) + "\n");
    flush_out();
    results_.push_back(std::move(r));
  }

  void finish() {
    if (format_ == "md" && !results_.empty()) print_out(markdown_footer(results_));
    if (format_ == "json") {
      Json list{Json::Array()};
      for (const BenchResult& r : results_) list.push(to_json(r));
      print_out(dump(list, {.indent = 2}) + "\n");
    }
    flush_out();
  }

 private:
  std::string format_;
  std::vector<BenchResult> results_;
};

std::vector<Test> tests_of(const Flags& f) {
  std::vector<Test> tests;
  const std::vector<int> prompts = parse_counts(f.prompts, "--n-prompt", 0, 1 << 24),
                         answers = parse_counts(f.answers, "--n-gen", 0, 1 << 24);
  for (int depth : parse_counts(f.depths, "--n-depth", 0, 1 << 24)) {
    for (int n : prompts) {
      if (n > 0) tests.push_back({n, 0, depth});
    }
    for (int n : answers) {
      if (n > 0) tests.push_back({0, n, depth});
    }
    for (const std::string& text : f.pairs) {
      const auto [prompt, answer] = parse_pair(text, "-pg");
      if (prompt + answer > 0) tests.push_back({prompt, answer, depth});
    }
  }
  if (tests.empty()) {
    throw Error({.code = "usage.value", .expected = "a test: -p, -n or -pg above 0", .found = "none"});
  }
  return tests;
}

int64_t run_once(BenchEngine& engine, const Test& t, int batch) {
  const auto start = std::chrono::steady_clock::now();
  engine.prompt(t.prompt, batch);
  engine.answer(t.answer);
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count();
}

// What one run of a test must do at least.
Amount amount_of(const Test& t, int batch, int ubatch) {
  const auto pieces = [](int64_t n, int64_t most) { return (n + most - 1) / most; };
  int64_t passes = t.answer;
  for (int done = 0; done < t.prompt; done += batch)
    passes += pieces(std::min(batch, t.prompt - done), ubatch);
  const int64_t wanted = pieces(t.prompt, batch) + t.answer;
  return {passes, t.prompt + t.answer, wanted, t.depth};
}

void set_limits(BenchResult& r, const Plan& plan, const Test& t, MachineProbe& probe) {
  BenchLimits& l = r.limits;
  const MachineProbe::Now now = probe.measure_again();
  l.now_read = now.read, l.now_int8 = now.int8;
  l.read_rate = probe.read_rate(), l.int8_rate = probe.int8_rate(), l.f32_rate = probe.f32_rate();
  l.read_pattern = probe.read_pattern();
  l.work = work_of(plan, amount_of(t, r.n_batch, r.n_ubatch));
  const double seconds = r.avg_ns() * 1e-9;
  if (t.answer == 0) {
    Work linear = l.work;
    linear.attention = 0;
    l.share = l.work.seconds(probe) / seconds, l.linear_share = linear.seconds(probe) / seconds;
  } else if (t.prompt == 0) {
    l.bytes_per_token = l.work.bytes / t.answer;
    l.share = l.work.bytes / seconds / probe.read_rate();
  }
}

struct Setting {
  int batch, ubatch, threads;
  std::string type_k, type_v;
};

class Bench {
 public:
  Bench(const Flags& flags, Printer& printer) : f_(flags), printer_(printer), tests_(tests_of(flags)) {}

  void run(const std::string& path, int threads) {
    ModelFlags m = f_.model;
    m.model = path, m.threads = threads;
    ProgressBar bar;
    const Model model(m.path(), m.options(bar.callback()));
    std::unique_ptr<MachineProbe> probe;
    if (!f_.no_probe && m.backend == "cpu") {
      probe = std::make_unique<MachineProbe>(model.isa(), model.pool(), int64_t(f_.probe_mib) << 20);
      probe->measure(3);
    }
    for (const std::string& k : parse_words(f_.types_k)) {
      for (const std::string& v : parse_words(f_.types_v)) {
        for (int batch : parse_counts(f_.batches, "--batch-size", 1, 1 << 24)) {
          for (int ubatch : parse_counts(f_.ubatches, "--ubatch-size", 0, 65536))
            setting(model, m, {batch, ubatch, model.pool().threads(), k, v}, probe.get(), bar);
        }
      }
    }
  }

 private:
  void setting(const Model& model, ModelFlags m, Setting s, MachineProbe* probe, ProgressBar& bar) {
    m.cache_type_k = s.type_k, m.cache_type_v = s.type_v, m.ubatch_size = s.ubatch;
    m.ctx_size = 1;
    for (const Test& t : tests_) m.ctx_size = std::max(m.ctx_size, t.prompt + t.answer + t.depth);
    RunnerOptions options = m.runner(&interrupt_flag());
    options.n_ubatch = s.ubatch = std::min(options.n_ubatch, s.batch);
    BenchEngine engine(model, options);
    for (const Test& t : tests_) {
      if (f_.delay > 0) std::this_thread::sleep_for(std::chrono::seconds(f_.delay));
      BenchResult r = describe(model, m, s, t);
      measure(engine, t, r, probe);
      bar.erase();
      printer_.add(std::move(r));
    }
  }

  static BenchResult describe(const Model& model, const ModelFlags& m, const Setting& s, const Test& t) {
    BenchResult r;
    r.model_filename = m.path(), r.model_type = describe_model(model.file());
    r.model_size = tensor_bytes(model.file()), r.model_n_params = count_parameters(model.file());
    r.backend = m.backend == "cpu" ? "CPU" : "CUDA";
    r.cpu_info = cpu_name(), r.isa = name(model.isa());
    r.type_k = s.type_k, r.type_v = s.type_v, r.test_time = utc_now();
    r.n_batch = s.batch, r.n_ubatch = s.ubatch, r.n_threads = s.threads;
    r.n_prompt = t.prompt, r.n_gen = t.answer, r.n_depth = t.depth;
    return r;
  }

  void measure(BenchEngine& engine, const Test& t, BenchResult& r, MachineProbe* probe) const {
    engine.truncate(0);
    if (!f_.no_warmup) {
      engine.prompt(t.prompt, r.n_batch);
      engine.answer(t.answer > 0 ? 1 : 0);
      engine.truncate(0);
    }
    engine.prompt(t.depth, r.n_batch);  // once: what follows it is forgotten after every repetition
    Sequences* s = engine.sequences();
    std::vector<StepTime> times(s ? s->plan().steps.size() : 0);
    if (s && f_.steps) s->time_steps(&times);
    for (int i = 0; i < f_.repetitions; ++i) {
      engine.truncate(t.depth);
      r.samples_ns.push_back(run_once(engine, t, r.n_batch));
    }
    if (!s || !probe) return;
    s->time_steps(nullptr);
    set_limits(r, s->plan(), t, *probe);
    if (!f_.steps) return;
    const Amount once = amount_of(t, r.n_batch, r.n_ubatch);
    for (StepTime& time : times) time.seconds /= f_.repetitions;
    const std::vector<StepGroup> groups = group_steps(s->plan(), times, once);
    r.step_table = step_table(groups, *probe, once.passes);
    r.steps = step_json(groups, *probe, once.passes);
  }

  const Flags& f_;
  Printer& printer_;
  std::vector<Test> tests_;
};

void run(const Flags& f) {
  catch_interrupt();
  Printer printer(f.output);
  Bench bench(f, printer);
  const std::vector<std::string> models =
      f.models.empty() ? std::vector<std::string>{""} : parse_words(f.models);
  for (const std::string& model : models) {
    for (int threads : parse_counts(f.threads, "--threads", 0, 1024)) bench.run(model, threads);
  }
  printer.finish();
}

CLI::Option* list(CLI::App* c, const char* names, std::vector<std::string>& value, const std::string& help) {
  return flag(c, names, value, help)->allow_extra_args(false);
}

}  // namespace

void add_bench(CLI::App& root) {
  CLI::App* c = root.add_subcommand("bench", "Tokens per second, and the share of what the machine allows");
  auto o = std::make_shared<Flags>();
  list(c, "-m,--model", o->models, "Model files (GGUF), separated by commas or given again");
  list(c, "-p,--n-prompt", o->prompts, "Tests of prompts: 512, or 128,512, or 1-512*2")
      ->capture_default_str();
  list(c, "-n,--n-gen", o->answers, "Tests of answers")->capture_default_str();
  list(c, "--prompt-gen", o->pairs, "Tests of a prompt and its answer: 512,128; may be given again (-pg)");
  list(c, "-d,--n-depth", o->depths, "Tokens in the context before each test")->capture_default_str();
  list(c, "-b,--batch-size", o->batches, "Tokens given to the engine at once")->capture_default_str();
  list(c, "--ubatch-size", o->ubatches, kUbatchHelp)->capture_default_str();
  list(c, "--cache-type-k", o->types_k, "Types of cached keys (-ctk)")->capture_default_str();
  list(c, "--cache-type-v", o->types_v, "Types of cached values (-ctv)")->capture_default_str();
  list(c, "-t,--threads", o->threads, "Threads; 0: one per core")->capture_default_str();
  flag(c, "-r,--repetitions", o->repetitions, "Repetitions of every test")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  flag(c, "--delay", o->delay, "Seconds of rest before every test")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  flag(c, "--no-warmup", o->no_warmup, "No run before the first that counts");
  flag(c, "--steps", o->steps, "Also the time of every step of the plan");
  flag(c, "--no-probe", o->no_probe, "Do not measure the limits of the machine");
  flag(c, "--probe-mib", o->probe_mib, "Memory that the read test goes through, in MiB")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  flag(c, "-o,--output", o->output, "md, json, jsonl or csv")
      ->check(CLI::IsMember({"md", "json", "jsonl", "csv"}))
      ->capture_default_str();
  flag(c, "--models-dir", o->model.models_dir, "Model folder");
  o->model.add_cpu(c);
  flag(c, "--no-fusion", o->model.no_fusion, "One step per operation");
  o->model.add_backend(c);
  c->callback([o] { run(*o); });
}

}  // namespace plumb
