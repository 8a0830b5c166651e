// Tests on statistics alone: the triangle of a residual addition, and what generated ids tell about logits.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "trace/check.h"

namespace plumb::trace {
namespace {

using Outcome = Finding::Outcome;

// rms over all recorded tokens, by step and value.
std::map<std::pair<int, std::string>, Number> sizes_of(const Trace& theirs) {
  std::map<std::pair<int, std::string>, Number> sizes;
  for (const Record& r : theirs.records()) {
    if (!r.full() && !r.last && r.stats[Stat::rms] && !r.value.empty())
      sizes.emplace(std::pair(r.step, r.value), *r.stats[Stat::rms]);
  }
  return sizes;
}

// |a - b| <= |a + b| <= |a| + |b|, whatever the elements are; printing may have moved each.
bool possible(const Number& sum, const Number& a, const Number& b) {
  const double slack = sum.unit + a.unit + b.unit + 1e-6 * (sum.value + a.value + b.value);
  return sum.value <= a.value + b.value + slack && sum.value >= std::abs(a.value - b.value) - slack;
}

}  // namespace

void check_summaries(const Trace& theirs, const std::string& arch, std::vector<Finding>& out) {
  const auto sizes = sizes_of(theirs);
  const bool post = arch.starts_with("gemma");
  int places = 0;
  for (const auto& [key, sum] : sizes) {
    const auto& [step, value] = key;
    const size_t dot = value.rfind('.');
    if (!value.starts_with("blk.") || dot == std::string::npos) continue;
    const std::string blk = value.substr(0, dot + 1), what = value.substr(dot + 1);
    const int layer = std::atoi(value.c_str() + 4);
    std::string in, branch;
    if (what == "attn_out") {
      in = layer > 0 ? fmt::format("blk.{}.ffn_out", layer - 1) : post ? "inp_scaled" : "token_embd";
      branch = blk + (post ? "post_attention_norm" : "attn_output");
    } else if (what == "ffn_out") {
      in = blk + "attn_out", branch = blk + (post ? "post_ffw_norm" : "ffn_down");
    }
    const auto a = sizes.find({step, in}), b = sizes.find({step, branch});
    if (a == sizes.end() || b == sizes.end()) continue;
    ++places;
    if (possible(sum, a->second, b->second)) continue;
    out.push_back({"residual rms", Outcome::violated, value,
                   fmt::format("rms {:.6g} cannot be that of a sum of {:.6g} ({}) and {:.6g} ({})", sum.value,
                               a->second.value, in, b->second.value, branch)});
    return;
  }
  if (places > 0)
    out.push_back({"residual rms", Outcome::holds, "",
                   fmt::format("the rms of the stream can be those of the sums in {} places", places)});
}

namespace {

// Ids that a greedy choice gives when the same logits are used at every step and each id is penalised when it
// has been chosen: divided by `penalty` per occurrence where positive, multiplied where negative.
std::vector<int64_t> repeated_choice(std::vector<std::pair<int64_t, double>> logits, double penalty,
                                     bool every, size_t n) {
  std::vector<int64_t> ids;
  std::map<int64_t, int> seen;
  for (size_t i = 0; i < n; ++i) {
    const auto best = std::max_element(logits.begin(), logits.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    ids.push_back(best->first);
    if (every || seen[best->first] == 0)
      best->second = best->second > 0 ? best->second / penalty : best->second * penalty;
    ++seen[best->first];
  }
  return ids;
}

}  // namespace

void check_samples(const Trace& theirs, std::vector<Finding>& out) {
  const Json* generated = theirs.header().json.find("generated");
  if (!generated || !generated->array() || generated->array()->size() < 3 ||
      generated->array()->size() > 4096)
    return;
  std::vector<int64_t> ids;
  for (const Json& id : *generated->array()) ids.push_back(id.integer().value_or(-1));
  for (const Record& r : theirs.records()) {
    if (r.value != "logits" || r.step != 0 || r.samples.size() < 2 || r.samples.size() > 4096) continue;
    std::vector<std::pair<int64_t, double>> logits;
    for (const auto& [id, x] : r.samples) logits.emplace_back(id, x.value);
    for (bool every : {true, false}) {
      for (int percent = 100; percent <= 200; percent += 5) {
        if (repeated_choice(logits, percent / 100.0, every, ids.size()) != ids) continue;
        out.push_back(
            {"sampler", Outcome::note, "logits",
             percent == 100
                 ? fmt::format("all {} generated ids are the largest logit of step 0", ids.size())
                 : fmt::format("the {} generated ids are the greedy choice with a repetition penalty of "
                               "{:.2f}{} from the logits of step 0 used again at every step: the logits "
                               "hardly depend on the input",
                               ids.size(), percent / 100.0, every ? " per occurrence" : "")});
        return;
      }
    }
  }
}

}  // namespace plumb::trace
