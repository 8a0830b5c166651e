#include "trace/floor.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "trace/digest.h"
#include "trace/recorder.h"

namespace plumb::trace {
namespace {

constexpr size_t kFloorTokens = 8;
constexpr double kAllowed = 4;  // errors up to so many floors are noise

struct Profile {
  const char* name;
  RunnerOptions options;
  double least;  // relative error that its number format alone may cause
};

std::vector<Profile> all_profiles() {
  const KvTypes f32{KvType::f32, KvType::f32};
  return {
      {"f32", {.arith = Arith::ref32}, 3e-7},
      {"q16", {.kv = f32, .rounding = Rounding::int16}, 3e-7},
      {"f16 KV", {.rounding = Rounding::int16}, 3e-7},
      {"f16", {.arith = Arith::ref32, .nodes = NodeRounding::f16}, 3e-4},
      {"q8 refined", {.rounding = Rounding::refined}, 3e-7},
      {"q8", {.rounding = Rounding::int8}, 3e-7},
      {"bf16", {.arith = Arith::ref32, .nodes = NodeRounding::bf16}, 2.4e-3},
  };
}

constexpr size_t kF16Cache = 2;  // among them

std::string cache_file(const Model& model, std::span<const int> tokens, const std::string& folder) {
  if (folder.empty()) return {};
  struct stat s{};
  ::stat(model.file().path().c_str(), &s);
  std::string key = fmt::format("1 {} {} {}.{}", model.file().path(), model.file().file_bytes(),
                                s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
  for (int id : tokens) key += fmt::format(" {}", id);
  return fmt::format("{}/{:016x}.json", folder, digest(key));
}

Json as_json(const std::map<std::string, std::vector<double>>& errors) {
  Json j = Json::Object();
  for (const auto& [value, list] : errors) {
    Json::Array a;
    for (double e : list) a.push_back(float(e));
    j.set(value, std::move(a));
  }
  return j;
}

bool read_errors(const Json* j, size_t profiles, std::map<std::string, std::vector<double>>& errors) {
  if (!j || !j->object()) return false;
  for (const auto& [value, list] : *j->object()) {
    if (!list.array() || list.array()->size() != profiles) return false;
    for (const Json& e : *list.array()) errors[value].push_back(e.number().value_or(0));
  }
  return true;
}

// A file that cannot be read or is not what was written counts as absent.
bool read_cache(const std::string& path, Floor& floor) {
  if (path.empty() || ::access(path.c_str(), R_OK) != 0) return false;
  try {
    const Json j = parse_json(read_file(path, kMaxJsonBytes), path);
    return read_errors(j.find("whole"), floor.profiles.size(), floor.whole) &&
           read_errors(j.find("local"), floor.profiles.size(), floor.local);
  } catch (const Error&) {
    return false;
  }
}

void write_cache(const std::string& path, const Floor& floor) {
  if (path.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  Json j;
  j.set("whole", as_json(floor.whole)), j.set("local", as_json(floor.local));
  try {
    atomic_replace(path, dump(j));
  } catch (const Error&) {  // it will be measured again
  }
}

// Log density of an error where rounding of size sigma causes it; a factor of 2.5 is one standard deviation.
// The errors of statistics scatter more, about a third of the elements' error.
double likely(double error, double sigma, bool of_elements) {
  const double s = std::log(of_elements ? 2.5 : 4.0);
  const double z = std::log(std::max(error, 1e-12) / (of_elements ? sigma : sigma / 3)) / s;
  return -0.5 * z * z - std::log(s * std::sqrt(2 * M_PI));
}

// The same where something else causes it: anything from 1e-9 to 10.
double unlikely() { return -std::log(std::log(1e10)); }

double likelihood(const Floor& floor, const std::map<std::string, std::vector<double>>& errors, bool local,
                  size_t p, const std::vector<Difference*>& list) {
  double sum = 0;
  bool broken = false;
  for (const Difference* d : list) {
    const double sigma = floor.of(errors, d->value, p), allowed = kAllowed * sigma + d->print;
    if (d->error == 0) continue;
    if (d->error > allowed) broken = broken || !local;
    const double fair = d->print > d->error ? unlikely() : likely(d->error, sigma, d->from == "full");
    if (broken) {
      sum += unlikely();
    } else {
      sum += std::log(0.95 * std::exp(fair) + 0.05 * std::exp(unlikely()));
    }
  }
  return sum;
}

}  // namespace

double Floor::of(const std::map<std::string, std::vector<double>>& errors, const std::string& value,
                 size_t p) const {
  static const std::vector<Profile> kProfiles = all_profiles();
  const auto at = errors.find(value);
  double measured = at == errors.end() ? 0 : at->second[p];
  // Whatever the arithmetic, a cache may be of f16.
  if (&errors == &local && value.ends_with(".attn") && at != errors.end())
    measured = std::max(measured, at->second[kF16Cache]);
  return std::max(kProfiles[p].least, measured);
}

Floor measure_floor(const Model& model, std::span<const int> tokens, const std::string& cache) {
  tokens = tokens.first(std::min(tokens.size(), kFloorTokens));
  Floor floor;
  for (const Profile& p : all_profiles()) floor.profiles.emplace_back(p.name);
  const std::string kept = cache_file(model, tokens, cache);
  if (read_cache(kept, floor)) return floor;
  floor.whole.clear(), floor.local.clear();
  const TemporaryFolder scratch;
  RunRequest request{.tokens = {tokens.begin(), tokens.end()}};
  request.durable = false, request.options.arith = Arith::ref64,
  request.path = scratch.path() + "/ours.trace";
  record_run(model, request);
  const Trace exact_trace = Trace::open(request.path);
  const Rows exact(exact_trace);
  const int64_t n = int64_t(tokens.size());
  for (const Profile& p : all_profiles()) {
    request.options = p.options, request.path = scratch.path() + "/profile.trace";
    record_run(model, request);
    const Trace trace = Trace::open(request.path);
    const Rows rows(trace);
    for (const Node& node : model.program().nodes) {
      const auto d = compare_full(rows, exact, node.name, Gauges({}), n);
      floor.whole[node.name].push_back(d ? d->error : 0);
    }
    for (const Node& node : model.program().nodes) floor.local[node.name].push_back(0);
    for (const Replayed& r : replay(model, rows, tokens, n))
      floor.local[r.difference.value].back() = r.difference.error;
  }
  write_cache(kept, floor);
  return floor;
}

Floor assumed_floor(const std::vector<std::string>& values) {
  constexpr double kSteps[] = {2e-7, 1e-6, 1e-4, 5e-4, 3e-3, 6e-3, 4e-3};
  Floor floor;
  for (const Profile& p : all_profiles()) floor.profiles.emplace_back(p.name);
  for (size_t i = 0; i < values.size(); ++i) {
    for (double step : kSteps) floor.whole[values[i]].push_back(step * std::sqrt(1 + double(i) / 4));
  }
  return floor;
}

double score_of(const Difference& d) {
  return d.finite ? d.error / (kAllowed * d.floor + d.print) : INFINITY;
}

size_t judge(const Floor& floor, bool local, std::vector<Difference*>& differences) {
  const auto& errors = local ? floor.local : floor.whole;
  size_t best = 0;
  double most = -INFINITY;
  for (size_t p = 0; p < floor.profiles.size(); ++p) {
    const double l = likelihood(floor, errors, local, p, differences);
    if (l > most + 1e-9) best = p, most = l;
  }
  for (Difference* d : differences) {
    d->floor = floor.of(errors, d->value, best);
    d->score = score_of(*d);
  }
  return best;
}

}  // namespace plumb::trace
