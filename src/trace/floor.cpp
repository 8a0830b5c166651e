#include "trace/floor.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/half.h"
#include "trace/digest.h"
#include "trace/inner.h"
#include "trace/recorder.h"

namespace plumb::trace {
namespace {

constexpr size_t kFloorTokens = 8;
constexpr double kAllowed = 4;  // errors up to so many floors are noise

struct Profile {
  const char* name;
  RunnerOptions options;
  double least;  // relative error that its number format alone may cause
  InnerFormats attention = {};
};

double nearest_f32(double x) { return double(float(x)); }
double nearest_f16(double x) { return double(half_to_float(float_to_half(float(x)))); }
double nearest_bf16(double x) { return double(bfloat16_to_float(float_to_bfloat16(float(x)))); }

std::vector<Profile> all_profiles() {
  const KvTypes f32{KvType::f32, KvType::f32};
  const InnerFormats wide{nullptr, nearest_f32}, cache{nearest_f16, nearest_f32};
  return {
      {"f32", {.arith = Arith::ref32}, 3e-7, wide},
      {"f32, sums from the end", {.arith = Arith::ref32, .arithmetic = {.sums_from_end = true}}, 3e-7, wide},
      {"q16", {.kv = f32, .rounding = Rounding::int16}, 3e-7, wide},
      {"f16 KV", {.rounding = Rounding::int16}, 3e-7, cache},
      {"f16", {.arith = Arith::ref32, .nodes = NodeRounding::f16}, 3e-4, {nearest_f16, nearest_f16}},
      {"q8 refined", {.rounding = Rounding::refined}, 3e-7, cache},
      {"q8", {.rounding = Rounding::int8}, 3e-7, cache},
      {"bf16", {.arith = Arith::ref32, .nodes = NodeRounding::bf16}, 2.4e-3, {nearest_bf16, nearest_bf16}},
  };
}

constexpr size_t kF16Cache = 3;  // among them

std::string cache_file(const Model& model, std::span<const int> tokens, const std::string& folder) {
  if (folder.empty()) return {};
  struct stat s{};
  ::stat(model.file().path().c_str(), &s);
  std::string key = fmt::format("2 {} {} {}.{}", model.file().path(), model.file().file_bytes(),
                                s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
  for (int id : tokens) key += fmt::format(" {}", id);
  return fmt::format("{}/{:016x}.json", folder, digest(key));
}

// What follows blk.N. in a name, and all of others.
std::string kind_after_layer(const std::string& value) {
  const size_t dot = value.starts_with("blk.") ? value.find('.', 4) : std::string::npos;
  return dot == std::string::npos ? value : value.substr(dot + 1);
}

Json as_json(const std::map<std::string, std::vector<double>>& errors) {
  Json j = Json::Object();
  for (const auto& [value, list] : errors) {
    Json::Array a;
    for (double e : list) a.push_back(e);
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
           read_errors(j.find("local"), floor.profiles.size(), floor.local) &&
           read_errors(j.find("shares"), size_t(kStats), floor.shares);
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
  j.set("shares", as_json(floor.shares));
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

// Gathers the errors of statistics over those of elements: of each value as a root mean square over the
// profiles, which leans on those of the same kind in all layers.
class Shares {
 public:
  void add(const Model& model, const Rows& exact, const Rows& rounded, int64_t n, const Floor& floor) {
    for (const Node& node : model.program().nodes) {
      Record like;
      like.first = 0, like.tokens = n;
      const auto a = summary_of(rounded, node.name, like), b = summary_of(exact, node.name, like);
      const double elements = floor.whole.at(node.name).back();
      if (!a || !b || elements <= 0) continue;
      for (Sum* sum : {&values_[node.name], &kinds_[kind_after_layer(node.name)]}) {
        ++sum->count;
        for (const StatError& part : compare_stats(a->stats, b->stats))
          sum->squares[size_t(*part.stat)] += std::pow(part.error / elements, 2);
      }
    }
  }

  void write(Floor& floor) const {
    constexpr double kLean = 4;
    for (const auto& [value, sum] : values_) {
      const Sum& all = kinds_.at(kind_after_layer(value));
      for (size_t s = 0; s < size_t(kStats); ++s) {
        const double lean = kLean * all.squares[s] / all.count;
        floor.shares[value].push_back(std::sqrt((sum.squares[s] + lean) / (sum.count + kLean)));
      }
    }
  }

 private:
  struct Sum {
    std::array<double, kStats> squares{};
    double count = 0;
  };
  std::map<std::string, Sum> values_, kinds_;
};

// What a profile does inside attention: to our values, and to those that it recorded before.
void measure_inner(const Model& model, const Rows& exact, const Rows& rounded, int64_t n,
                   const InnerFormats& formats, Floor& floor) {
  const Program& p = model.program();
  for (Value v = 0; v < Value(p.nodes.size()); ++v) {
    if (!std::holds_alternative<Attention>(p.nodes[size_t(v)].op)) continue;
    const AttentionRows right(p, v, exact, n), local(p, v, exact, n, formats),
        whole(p, v, rounded, n, formats);
    const auto measure = [&](const AttentionRows& other, bool alone, auto& errors) {
      Comparison c[] = {{"", 1}, {"", 1}, {"", 1}};
      for (int64_t t = 0; t < n && right.has(t) && other.has(t); ++t) {
        const std::vector<double> kq = right.kq(t), probs = right.probs(kq, t), kqv = right.kqv(probs);
        const std::vector<double> s = other.kq(t), w = other.probs(s, t);
        c[0].add(t, s, kq), c[1].add(t, w, probs);
        c[2].add(t, other.kqv(alone ? probs : w), kqv);
      }
      for (Inner part : {Inner::kq, Inner::probs, Inner::kqv})
        errors[inner_name(p.nodes[size_t(v)].name, part)].push_back(c[int(part)].result().error);
    };
    measure(local, true, floor.local), measure(whole, false, floor.whole);
  }
}

}  // namespace

double Floor::of(const std::map<std::string, std::vector<double>>& errors, const std::string& value,
                 size_t p) const {
  static const std::vector<Profile> kProfiles = all_profiles();
  const auto at = errors.find(value);
  double measured = at == errors.end() ? 0 : at->second[p];
  // Whatever the arithmetic, a cache may be of f16.
  if (&errors == &local && at != errors.end() && (value.ends_with(".attn") || inner_value(value)))
    measured = std::max(measured, at->second[kF16Cache]);
  return std::max(kProfiles[p].least, measured);
}

double Floor::of(const std::string& value, const StatError& part, size_t p) const {
  const double elements = of(whole, value, p);
  const auto at = shares.find(value);
  if (!part.stat || at == shares.end()) return elements;
  return std::max(elements * at->second[size_t(*part.stat)], 3e-7);
}

Floor measure_floor(const Model& model, std::span<const int> tokens, const std::string& cache,
                    std::atomic<bool>* cancel) {
  tokens = tokens.first(std::min(tokens.size(), kFloorTokens));
  Floor floor;
  for (const Profile& p : all_profiles()) floor.profiles.emplace_back(p.name);
  const std::string kept = cache_file(model, tokens, cache);
  if (read_cache(kept, floor)) return floor;
  floor.whole.clear(), floor.local.clear();
  const TemporaryFolder scratch;
  RunRequest request{.tokens = {tokens.begin(), tokens.end()}};
  request.durable = false, request.options.arith = Arith::ref64, request.options.cancel = cancel;
  request.path = scratch.path() + "/ours.trace";
  record_run(model, request);
  const Trace exact_trace = Trace::open(request.path);
  const Rows exact(exact_trace);
  const int64_t n = int64_t(tokens.size());
  Shares shares;
  for (const Profile& p : all_profiles()) {
    request.options = p.options, request.options.cancel = cancel,
    request.path = scratch.path() + "/profile.trace";
    record_run(model, request);
    const Trace trace = Trace::open(request.path);
    const Rows rows(trace);
    for (const Node& node : model.program().nodes) {
      const auto d = compare_full(rows, exact, node.name, Gauges({}), n);
      floor.whole[node.name].push_back(d ? d->error : 0);
    }
    for (const Node& node : model.program().nodes) floor.local[node.name].push_back(0);
    for (const Replayed& r : replay(model, rows, tokens, n, cancel))
      floor.local[r.difference.value].back() = r.difference.error;
    measure_inner(model, exact, rows, n, p.attention, floor);
    shares.add(model, exact, rows, n, floor);
  }
  shares.write(floor);
  write_cache(kept, floor);
  return floor;
}

Floor assumed_floor(const std::vector<std::string>& values) {
  constexpr double kSteps[] = {2e-7, 2e-7, 1e-6, 1e-4, 5e-4, 3e-3, 6e-3, 4e-3};
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
    d->noise = 0;
    for (const StatError& part : d->parts)
      d->noise = std::max(d->noise, part.error / (floor.of(d->value, part, best) + part.print / kAllowed));
  }
  return best;
}

int first_excess(const std::vector<Difference>& list) {
  const auto over = std::find_if(list.begin(), list.end(), [](const Difference& d) { return d.score > 1; });
  if (over == list.end()) return -1;
  // Behind a fault: anything from a third of the floor to 3,000 times; before it: as Student's t with four
  // degrees of freedom.
  int first = int(over - list.begin());
  double behind = 0, most = 0;
  for (int i = first - 1; i >= 0 && list[size_t(i)].from != "full"; --i) {
    const double z = std::clamp(list[size_t(i)].noise, 0.05, 3000.0);
    const double noise = 2 * 0.375 * z / std::pow(1 + z * z / 4, 2.5);
    behind += std::log(z > 1.0 / 3 ? 1 / std::log(1e4) : 1e-3) - std::log(noise);
    if (behind > most) most = behind, first = i;
  }
  return first;
}

}  // namespace plumb::trace
