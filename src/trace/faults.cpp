#include "trace/faults.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace plumb::trace {
namespace {

std::vector<Fault> all_faults() {
  std::vector<Fault> all;
  for (const auto add : {add_layout_faults, add_decoding_faults, add_norm_faults, add_head_faults,
                         add_rope_faults, add_attention_faults, add_cache_faults, add_ffn_faults,
                         add_output_faults, add_text_faults, add_precision_faults})
    add(all);
  std::vector<Fault> ordered;
  for (char family = 'A'; family <= 'N'; ++family) {
    for (const Fault& f : all) {
      if (f.id[0] == family) ordered.push_back(f);
    }
  }
  return ordered;
}

// Bytes of blocks come before what is made of them, so that edits of one weight build on each other.
int stage(const Fault& f) {
  static constexpr std::string_view kBytes[] = {"A6", "A7", "A8", "A8b", "A9", "A16"};
  if (std::find(std::begin(kBytes), std::end(kBytes), f.id) != std::end(kBytes)) return 0;
  return f.id[0] == 'B' ? 1 : 2;
}

[[noreturn]] void refuse_fault(const std::string& found) {
  std::string near;
  for (const Fault& f : catalogue()) {
    if (!found.empty() && f.id[0] == std::toupper(found[0]) && near.size() < 60)
      near += (near.empty() ? "" : ", ") + f.id;
  }
  throw Error(
      {.code = "usage.fault",
       .expected = near.empty() ? "the id of a fault, such as F1" : "the id of a fault: " + near + ", ...",
       .found = printable(found),
       .where = {.key = "--fault"},
       .remedy = "'plumb faults list' shows all"});
}

ChosenFault choose(const std::string& text) {
  const size_t equals = text.find('=');
  const Fault* f = find_fault(std::string_view(text).substr(0, equals));
  if (!f) refuse_fault(text);
  if (equals == text.npos) return {f, f->parameter.usual};
  double value = 0;
  const auto [end, error] = std::from_chars(text.data() + equals + 1, text.data() + text.size(), value);
  if (!f->parameter.name || error != std::errc() || end != text.data() + text.size() ||
      !(value >= f->parameter.low) || !(value <= f->parameter.high)) {
    throw Error({.code = "usage.fault",
                 .expected = f->parameter.name ? fmt::format("{}={} from {} to {}", f->id, f->parameter.name,
                                                             f->parameter.low, f->parameter.high)
                                               : f->id + ", which has no parameter",
                 .found = printable(text),
                 .where = {.key = "--fault"}});
  }
  return {f, value};
}

}  // namespace

const std::vector<Fault>& catalogue() {
  static const std::vector<Fault> kAll = all_faults();
  return kAll;
}

std::string full_name(const Fault& f) { return f.id + "-" + f.name; }

const Fault* find_fault(std::string_view id) {
  for (const Fault& f : catalogue()) {
    if (f.id == id || full_name(f) == id) return &f;
  }
  return nullptr;
}

std::vector<ChosenFault> choose_faults(const std::string& list) {
  std::vector<ChosenFault> chosen;
  for (size_t at = 0; at <= list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    chosen.push_back(choose(list.substr(at, comma - at)));
    at = comma + 1;
  }
  return chosen;
}

const char* family_name(char letter) {
  switch (letter) {
    case 'A':
      return "loading and layout";
    case 'B':
      return "dequantisation";
    case 'C':
      return "embedding";
    case 'D':
      return "norm and residual";
    case 'E':
      return "projections and heads";
    case 'F':
      return "rope and positions";
    case 'G':
      return "attention";
    case 'H':
      return "KV cache and stepping";
    case 'I':
      return "FFN";
    case 'J':
      return "output";
    case 'K':
      return "text";
    case 'L':
      return "sampling";
    case 'M':
      return "precision";
    case 'N':
      return "no fault";
  }
  return "";
}

std::string why_not(const Fault& fault, const Model& model) {
  Variant v = right_variant(model);
  return fault.edit(v, fault.parameter.usual);
}

bool applies(const Fault& fault, const Model& model) { return why_not(fault, model).empty(); }

Variant vary(const Model& model, std::span<const ChosenFault> faults) {
  std::vector<ChosenFault> ordered;
  for (int s = 0; s < 3; ++s) {
    for (const ChosenFault& c : faults) {
      if (stage(*c.fault) == s) ordered.push_back(c);
    }
  }
  Variant v = right_variant(model);
  for (const ChosenFault& c : ordered) {
    if (const std::string why = c.fault->edit(v, c.parameter); !why.empty()) {
      throw Error({.code = "fault.applies",
                   .expected = "a model in which " + full_name(*c.fault) + " can be",
                   .found = why,
                   .where = {.file = model.file().path()}});
    }
  }
  return v;
}

std::optional<Variant> try_vary(const Model& model, std::span<const ChosenFault> faults) {
  try {
    return vary(model, faults);
  } catch (const Error& e) {
    if (e.code() != "fault.applies") throw;
    return std::nullopt;
  }
}

Variant vary(const Model& model, std::span<const Fault* const> faults) {
  std::vector<ChosenFault> chosen;
  for (const Fault* f : faults) chosen.push_back({f, f->parameter.usual});
  return vary(model, chosen);
}

}  // namespace plumb::trace
