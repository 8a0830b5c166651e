#include "trace/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <map>
#include <mutex>

#include "base/error.h"
#include "base/file.h"
#include "models/models.h"
#include "trace/edits.h"
#include "trace/probe_fit.h"
#include "trace/probe_model.h"

namespace plumb::trace {
namespace {

constexpr int kCalls = 4;  // the prompt and three steps: "ok ok ok" and the end
constexpr double kRidge = 1e-4, kLogits = 40;
constexpr double kSeen = 3, kApart = 3;  // in units of what arithmetic does to a state
constexpr double kMargin = 0.15;         // of an answer, in every arithmetic

// The arithmetics of healthy engines, the exact one first; the last takes no part in the fit.
const std::array<Arithmetic, 5> kProfiles = {{{},
                                              {.inputs = Rounded::q8, .cache = Rounded::f16},
                                              {.values = Rounded::bf16},
                                              {.values = Rounded::f16},
                                              {.values = Rounded::bf16, .inputs = Rounded::q8}}};
constexpr size_t kFitted = kProfiles.size() - 1;

using State = std::vector<double>;         // of length 1; empty: it has none
using States = std::array<State, kCalls>;  // by call
using Profiles = std::array<States, kProfiles.size()>;

double distance(const State& a, const State& b) {
  if (a.empty() || b.empty()) return INFINITY;
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

double noise(const Profiles& p, int call) {
  double most = 0;
  for (size_t i = 1; i < p.size(); ++i)
    most = std::max(most, distance(p[0][size_t(call)], p[i][size_t(call)]));
  return most;
}

struct Case {
  ProbeEntry entry;
  Profiles states = {};
  int group = -1;
};

class Maker {
 public:
  Maker(const ProbeFileOptions& o)
      : o_(o),
        model_{.formats = o.formats},
        bytes_(model_.bytes({}, {})),
        file_(Gguf::parse(bytes_, "probe")),
        program_(build_program(file_)) {}

  ProbeBook make(const std::string& path) {
    simulate();
    group();
    while (fit()) {
    }
    write(path);
    return book();
  }

 private:
  Variant right() const {
    Variant v;
    v.file = &file_, v.program = program_;
    return v;
  }
  void simulate();
  void simulate(Case& c);
  bool states_of(const Variant& v, const std::vector<int>& prompt, const Arithmetic& a, States& out);
  void group();
  bool fit();
  void join(int a, int b);
  double judge(const Case& c, int& rival) const;
  std::vector<ProbeSample> samples() const;
  struct Answer {
    int id = 0, next = 0;
    double margin = 0;  // between their logits
  };
  Answer answer(const State& s) const;
  void write(const std::string& path);
  ProbeBook book() const;
  int name_id(int group) const;

  const ProbeFileOptions& o_;
  ProbeModel model_;
  std::vector<uint8_t> bytes_;
  Gguf file_;
  Program program_;
  DecodedWeights decoded_{int64_t(256) << 20};
  std::vector<int> prompt_;
  Profiles health_ = {};
  std::vector<Case> cases_;
  std::vector<int> ids_;      // of groups, by group
  std::vector<double> head_;  // [kVocab, kWidth]
};

bool Maker::states_of(const Variant& v, const std::vector<int>& prompt, const Arithmetic& a, States& out) {
  Pool pool(1);
  VariantRun run{.tokens = prompt, .calls = {int(prompt.size()), 1, 1, 1}, .values = {"output_norm"}};
  run.tokens.insert(run.tokens.end(), kCalls - 1, ProbeModel::kOk);
  run.f64 = false, run.profile = a, run.decoded = &decoded_, run.cancel = o_.cancel;
  const int shift = v.program.nodes[size_t(v.program.output)].wrong.row_shift;
  bool finite = true;
  run_variant(v, pool, run, [&](const VariantRows& r) {
    const size_t width = size_t(r.heads * r.dim), row = size_t(std::max(0, r.rows - 1 - shift));
    State& s = out[size_t(r.call)];
    s.assign(r.data.begin() + int64_t(row * width), r.data.begin() + int64_t((row + 1) * width));
    if (!to_unit(s)) s.clear(), finite = false;
  });
  return finite;
}

// Why a fault that can be there shows in no piece; empty: it may.
std::string invisible(const Variant& v, const Program& right) {
  const Node& a = v.program.nodes[size_t(v.program.output)];
  const Node& b = right.nodes[size_t(right.output)];
  const auto* la = std::get_if<Linear>(&a.op);
  const auto* lb = std::get_if<Linear>(&b.op);
  if (!la || !lb || la->w < 0) return "the head is another operation";
  const WeightRef& w = v.program.weights[size_t(la->w)];
  if (w.read || w.data != right.weights[size_t(lb->w)].data) return "the head itself is read otherwise";
  for (const MetadataEdit& e : v.metadata) {
    if (e.key == "tokenizer.ggml.tokens") return "the pieces themselves are others";
  }
  return {};
}

void Maker::simulate(Case& c) {
  Variant v = right();
  c.entry.why_not = c.entry.fault->edit(v, c.entry.parameter);
  c.entry.fits = c.entry.why_not.empty();
  if (c.entry.fits) c.entry.why_not = invisible(v, program_);
  if (!c.entry.why_not.empty()) return;
  if (const int roll = v.program.nodes[size_t(v.program.output)].wrong.roll; roll != 0) {
    c.entry.answer = ProbeModel::kOk + roll;
    return;
  }
  const std::vector<int> prompt = encode_text(v, kProbePrompt, {});
  if (prompt.empty()) {
    c.entry.why_not = "no token is left of the prompt";
    return;
  }
  for (size_t p = 0; p < kProfiles.size(); ++p) {
    if (!states_of(v, prompt, kProfiles[p], c.states[p])) {
      c.entry.why_not = "its numbers are not finite";
      return;
    }
  }
}

void Maker::simulate() {
  prompt_ = encode_text(right(), kProbePrompt, {});
  for (size_t p = 0; p < kProfiles.size(); ++p)
    PLUMB_CHECK(states_of(right(), prompt_, kProfiles[p], health_[p]));
  for (const Fault& f : catalogue()) {
    if (f.control || f.id[0] == 'L') continue;
    cases_.push_back({.entry = {.fault = &f, .parameter = f.parameter.usual}});
    for (double value : f.parameter.grid) {
      if (value != f.parameter.usual) cases_.push_back({.entry = {.fault = &f, .parameter = value}});
    }
  }
  Pool pool(o_.threads);
  std::mutex mutex;
  std::exception_ptr failed;
  size_t done = 0;
  pool.each(int(cases_.size()), [&](int i) {
    try {
      {
        const std::lock_guard lock(mutex);
        if (failed) return;
      }
      simulate(cases_[size_t(i)]);
      const std::lock_guard lock(mutex);
      o_.progress("simulating", double(++done) / double(cases_.size()));
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failed) failed = std::current_exception();
    }
  });
  if (failed) std::rethrow_exception(failed);
}

// Where each fault first shows, and which faults leave the same state.
void Maker::group() {
  for (Case& c : cases_) {
    if (!c.entry.why_not.empty() || c.entry.answer >= 0) continue;
    int call = 0;
    const auto shows = [&](int k) {
      return distance(c.states[0][size_t(k)], health_[0][size_t(k)]) >
             kSeen * std::max(noise(c.states, k), noise(health_, k));
    };
    while (call < kCalls && !shows(call)) ++call;
    if (call == kCalls) {
      c.entry.why_not = "it changes less than healthy arithmetic does";
      continue;
    }
    c.entry.step = call;
    c.group = int(&c - cases_.data());
  }
  for (size_t i = 0; i < cases_.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const Case &a = cases_[i], &b = cases_[j];
      if (a.group < 0 || b.group < 0 || a.group == b.group || a.entry.step != b.entry.step) continue;
      const size_t k = size_t(a.entry.step);
      const double apart = distance(a.states[0][k], b.states[0][k]);
      if (apart < kApart * std::max(noise(a.states, int(k)), noise(b.states, int(k)))) join(a.group, b.group);
    }
  }
}

void Maker::join(int a, int b) {
  for (Case& c : cases_) {
    if (c.group == std::max(a, b)) c.group = std::min(a, b);
  }
}

int Maker::name_id(int group) const {
  return ProbeModel::kFirstName + int(std::find(ids_.begin(), ids_.end(), group) - ids_.begin());
}

std::vector<ProbeSample> Maker::samples() const {
  std::vector<ProbeSample> all;
  const double share = 1.0 / double(kFitted);
  for (size_t p = 0; p < kFitted; ++p) {
    for (int k = 0; k < kCalls; ++k) {
      const int right = k + 1 < kCalls ? ProbeModel::kOk : ProbeModel::kEnd;
      all.push_back({health_[p][size_t(k)], right, 4 * share});
    }
    for (const Case& c : cases_) {
      if (c.group < 0) continue;
      all.push_back({c.states[p][size_t(c.entry.step)], name_id(c.group), share});
    }
  }
  return all;
}

Maker::Answer Maker::answer(const State& s) const {
  Answer a;
  double first = -INFINITY, second = -INFINITY;
  for (int id = 0; id < ProbeModel::kVocab; ++id) {
    double sum = 0;
    for (size_t i = 0; i < s.size(); ++i) sum += head_[size_t(id) * s.size() + i] * s[i];
    if (sum > first) {
      second = first, a.next = a.id, first = sum, a.id = id;
    } else if (sum > second) {
      second = sum, a.next = id;
    }
  }
  a.margin = first - second;
  return a;
}

// The least margin of the right answer, negative where another wins; `rival` is the other.
double Maker::judge(const Case& c, int& rival) const {
  double least = INFINITY;
  for (const States& s : c.states) {
    const Answer a = answer(s[size_t(c.entry.step)]);
    const bool right = a.id == name_id(c.group);
    const double margin = right ? a.margin : -a.margin;
    if (margin < least) least = margin, rival = right ? a.next : a.id;
  }
  return least;
}

// Fits the head; joins the first fault that it confuses with its rival, and says whether there was one.
bool Maker::fit() {
  ids_.clear();
  for (const Case& c : cases_) {
    if (c.group >= 0 && std::find(ids_.begin(), ids_.end(), c.group) == ids_.end()) ids_.push_back(c.group);
  }
  PLUMB_CHECK(ProbeModel::kFirstName + int(ids_.size()) <= ProbeModel::kVocab);
  head_ = fit_head(samples(), ProbeModel::kVocab, ProbeModel::kWidth, kRidge);
  for (Case& c : cases_) {
    if (c.group < 0) continue;
    int rival = 0;
    c.entry.margin = judge(c, rival);
    c.entry.answer = name_id(c.group);
    if (c.entry.margin >= kMargin) continue;
    if (rival >= ProbeModel::kFirstName && rival - ProbeModel::kFirstName < int(ids_.size())) {
      join(c.group, ids_[size_t(rival - ProbeModel::kFirstName)]);
    } else {
      c.group = -1, c.entry.answer = -1, c.entry.why_not = "too near to a right engine";
    }
    return true;
  }
  return false;
}

ProbeBook Maker::book() const {
  ProbeBook b;
  b.prompt = prompt_;
  b.margin = INFINITY;
  for (const States& s : health_) {
    for (int k = 0; k < kCalls; ++k) {
      const Answer a = answer(s[size_t(k)]);
      const int right = k + 1 < kCalls ? ProbeModel::kOk : ProbeModel::kEnd;
      b.margin = std::min(b.margin, a.id == right ? a.margin : -a.margin);
    }
  }
  std::map<int, std::string> names;
  for (const Case& c : cases_) {
    b.entries.push_back(c.entry);
    if (c.entry.answer < 0) continue;
    std::string& name = names[c.entry.answer];
    const bool usual = c.entry.parameter == c.entry.fault->parameter.usual;
    name += name.empty() ? usual ? full_name(*c.entry.fault) : id_of(c.entry) + "-" + c.entry.fault->name
                         : "," + id_of(c.entry);
  }
  b.names.assign(names.begin(), names.end());
  return b;
}

void Maker::write(const std::string& path) {
  std::map<int, std::string> names = {{ProbeModel::kOk, "ok"}};
  for (const auto& [id, name] : book().names) names[id] = name;
  std::vector<float> head(head_.size());
  std::transform(head_.begin(), head_.end(), head.begin(), [](double w) { return float(kLogits * w / 16); });
  const std::vector<uint8_t> bytes = model_.bytes(names, head);
  atomic_replace(path, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace

std::string id_of(const ProbeEntry& e) {
  return e.parameter == e.fault->parameter.usual ? e.fault->id
                                                 : fmt::format("{}={:g}", e.fault->id, e.parameter);
}

ProbeBook write_probe_file(const std::string& path, const ProbeFileOptions& options) {
  return Maker(options).make(path);
}

}  // namespace plumb::trace
