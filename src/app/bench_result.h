// One finished test of `plumb bench`, under llama-bench's names, and the ways to print it.
#pragma once

#include <string>
#include <vector>

#include "app/bench_cost.h"
#include "base/json.h"

namespace plumb {

/// How a rate compares with what the machine could do in the same run.
struct BenchLimits {
  double share = 0;         // of the int8 peak (prompts) or of the read rate (answers); 0: not known
  double linear_share = 0;  // prompts: without attention
  double read_rate = 0, int8_rate = 0, f32_rate = 0;  // best so far, per second
  double now_read = 0, now_int8 = 0;                  // just after the test
  std::string read_pattern;
  double bytes_per_token = 0;  // answers: of weights
  Work work;                   // of one repetition
};

struct BenchResult {
  std::string model_filename, model_type, backend, cpu_info, isa, type_k, type_v, test_time;
  int64_t model_size = 0, model_n_params = 0;
  int n_batch = 0, n_ubatch = 0, n_threads = 0, n_prompt = 0, n_gen = 0, n_depth = 0;
  std::vector<int64_t> samples_ns;
  BenchLimits limits;
  std::string step_table;
  Json steps;

  double avg_ns() const;
  std::vector<double> rates() const;  // tokens per second of every repetition
  std::string test() const;           // "pp512", "tg128 @ d1024", "pp512+tg128"
};

double mean(const std::vector<double>& x);
/// Of a sample: divides by n - 1; 0 for one value.
double deviation(const std::vector<double>& x);

Json to_json(const BenchResult& r);
std::string csv_header(const BenchResult& first);
std::string csv_line(const BenchResult& r);
std::string markdown_header();
std::string markdown_line(const BenchResult& r);
std::string markdown_footer(const std::vector<BenchResult>& results);

}  // namespace plumb
