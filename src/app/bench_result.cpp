#include "app/bench_result.h"

#include <fmt/format.h>

#include <cmath>
#include <numeric>

namespace plumb {

double mean(const std::vector<double>& x) {
  return x.empty() ? 0 : std::accumulate(x.begin(), x.end(), 0.0) / double(x.size());
}

double deviation(const std::vector<double>& x) {
  if (x.size() < 2) return 0;
  double sum = 0;
  for (double v : x) sum += (v - mean(x)) * (v - mean(x));
  return std::sqrt(sum / double(x.size() - 1));
}

double BenchResult::avg_ns() const { return mean({samples_ns.begin(), samples_ns.end()}); }

std::vector<double> BenchResult::rates() const {
  std::vector<double> rates;
  for (int64_t ns : samples_ns) rates.push_back(1e9 * (n_prompt + n_gen) / double(ns));
  return rates;
}

std::string BenchResult::test() const {
  std::string name;
  if (n_prompt > 0) name = fmt::format("pp{}", n_prompt);
  if (n_gen > 0) name += fmt::format("{}tg{}", n_prompt > 0 ? "+" : "", n_gen);
  return n_depth > 0 ? fmt::format("{} @ d{}", name, n_depth) : name;
}

Json to_json(const BenchResult& r) {
  Json j;
  j.set("build_commit", PLUMB_VERSION);
  j.set("build_number", 0);
  j.set("cpu_info", r.cpu_info);
  j.set("gpu_info", "");
  j.set("backends", r.backend);
  j.set("model_filename", r.model_filename);
  j.set("model_type", r.model_type);
  j.set("model_size", r.model_size);
  j.set("model_n_params", r.model_n_params);
  j.set("n_batch", r.n_batch);
  j.set("n_ubatch", r.n_ubatch);
  j.set("n_threads", r.n_threads);
  j.set("type_k", r.type_k);
  j.set("type_v", r.type_v);
  j.set("n_prompt", r.n_prompt);
  j.set("n_gen", r.n_gen);
  j.set("n_depth", r.n_depth);
  j.set("test_time", r.test_time);
  std::vector<double> ns(r.samples_ns.begin(), r.samples_ns.end());
  j.set("avg_ns", int64_t(mean(ns)));
  j.set("stddev_ns", int64_t(deviation(ns)));
  j.set("avg_ts", mean(r.rates()));
  j.set("stddev_ts", deviation(r.rates()));
  j.set("isa", r.isa);
  const BenchLimits& l = r.limits;
  if (l.read_rate > 0) {
    j.set("limit_share", l.share);
    j.set("linear_share", l.linear_share);
    j.set("read_gb_per_s", l.read_rate * 1e-9);
    j.set("read_pattern", l.read_pattern);
    j.set("int8_gmac_per_s", l.int8_rate * 1e-9);
    j.set("f32_gmac_per_s", l.f32_rate * 1e-9);
    j.set("read_now_gb_per_s", l.now_read * 1e-9);
    j.set("int8_now_gmac_per_s", l.now_int8 * 1e-9);
    j.set("bytes_per_token", l.bytes_per_token);
    j.set("int8_macs", l.work.int8);
    j.set("f32_macs", l.work.f32);
    j.set("attention_macs", l.work.attention);
  }
  if (!r.steps.is_null()) j.set("steps", r.steps);
  Json samples{Json::Array()}, rates{Json::Array()};
  for (int64_t v : r.samples_ns) samples.push(v);
  for (double v : r.rates()) rates.push(v);
  j.set("samples_ns", std::move(samples));
  j.set("samples_ts", std::move(rates));
  return j;
}

namespace {

// Columns of the CSV: every scalar of the JSON object that all tests have.
std::string csv(const BenchResult& r, bool header) {
  std::string line;
  const Json json = to_json(r);
  for (const auto& [key, value] : *json.object()) {
    if (value.array()) continue;
    std::string cell = header ? key : value.text() ? *value.text() : dump(value);
    for (size_t at = 0; (at = cell.find('"', at)) != std::string::npos; at += 2) cell.insert(at, 1, '"');
    line += (line.empty() ? "" : ",") + (header ? cell : '"' + cell + '"');
  }
  return line + "\n";
}

}  // namespace

std::string csv_header(const BenchResult& first) { return csv(first, true); }
std::string csv_line(const BenchResult& r) { return csv(r, false); }

std::string markdown_header() {
  return fmt::format("| {:<30} | {:>10} | {:>10} | {:<10} | {:>7} | {:>15} | {:>20} | {:>9} |\n", "model",
                     "size", "params", "backend", "threads", "test", "t/s", "of limit") +
         fmt::format("| {:-<30} | {:->9}: | {:->9}: | {:-<10} | {:->6}: | {:->14}: | {:->19}: | {:->8}: |\n",
                     "", "", "", "", "", "", "", "");
}

std::string markdown_line(const BenchResult& r) {
  const double mib = double(r.model_size) / (1 << 20), n = double(r.model_n_params);
  const std::string size =
      mib < 1024 ? fmt::format("{:.2f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
  const std::string params = n < 1e9 ? fmt::format("{:.2f} M", n * 1e-6) : fmt::format("{:.2f} B", n * 1e-9);
  const std::string rate = fmt::format("{:.2f} \u00b1 {:.2f}", mean(r.rates()), deviation(r.rates()));
  const std::string share = r.limits.share > 0 ? fmt::format("{:.1f}%", 100 * r.limits.share) : "";
  return fmt::format("| {:<30} | {:>10} | {:>10} | {:<10} | {:>7} | {:>15} | {:>20} | {:>9} |\n",
                     r.model_type, size, params, r.backend, r.n_threads, r.test(), rate, share);
}

std::string markdown_footer(const std::vector<BenchResult>& results) {
  std::string text;
  for (const BenchResult& r : results) {
    if (!r.step_table.empty())
      text += fmt::format("\n{}, {}, {} threads:\n{}", r.model_type, r.test(), r.n_threads, r.step_table);
  }
  const BenchLimits& l = results.back().limits;
  if (l.read_rate > 0) {
    text += fmt::format(
        "\nlimits of this run: {:.1f} GB/s ({}), {:.1f} GMAC/s in int8, {:.1f} in f32 ({}); prompts are "
        "compared "
        "with the int8 peak, answers with the bytes of weights that they read\n",
        l.read_rate * 1e-9, l.read_pattern, l.int8_rate * 1e-9, l.f32_rate * 1e-9, results.back().isa);
  }
  return text + "\nbuild: " PLUMB_VERSION "\n";
}

}  // namespace plumb
