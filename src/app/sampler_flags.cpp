#include "app/sampler_flags.h"

#include <charconv>
#include <random>
#include <utility>
#include <vector>

#include "app/flags.h"
#include "base/error.h"

namespace plumb {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::string part;
  for (char c : text) {
    if (c == separator) {
      parts.push_back(std::exchange(part, {}));
    } else {
      part += c;
    }
  }
  parts.push_back(part);
  return parts;
}

// ID+BIAS, as llama.cpp spells it.
std::pair<int, double> bias_of(const std::string& text) {
  int id = -1;
  double bias = 0;
  const char* end = text.data() + text.size();
  const auto at = std::from_chars(text.data(), end, id);
  const bool plus = at.ptr != end && *at.ptr == '+';
  const auto last = std::from_chars(at.ptr + plus, end, bias);
  const bool sign = at.ptr != end && (plus || *at.ptr == '-');
  if (at.ec == std::errc() && last.ec == std::errc() && last.ptr == end && sign && id >= 0) return {id, bias};
  throw Error({.code = "sampler.value",
               .expected = "a token's id, a sign and a number, as in 15043-1.5",
               .found = printable(text),
               .where = {.key = "--logit-bias"}});
}

}  // namespace

void SamplerFlags::add(CLI::App* c) {
  SamplerOptions& s = options;
  flag(c, "-s,--seed", seed, "Seed of the draws; -1: chosen and shown")->capture_default_str();
  flag(c, "--temp,--temperature", s.temperature, "Temperature; 0: always the likeliest token")
      ->capture_default_str();
  flag(c, "--top-k", s.top_k, "Keep the k likeliest; 0: all")->capture_default_str();
  flag(c, "--top-p", s.top_p, "Keep the likeliest that sum to p; 1: all")->capture_default_str();
  flag(c, "--min-p", s.min_p, "Keep those of at least p times the likeliest; 0: all")->capture_default_str();
  flag(c, "--repeat-penalty", s.repeat_penalty, "Penalty on ids seen lately; 1: none")->capture_default_str();
  flag(c, "--presence-penalty", s.presence_penalty, "Subtracted once from ids seen lately")
      ->capture_default_str();
  flag(c, "--frequency-penalty", s.frequency_penalty, "Subtracted per occurrence of ids seen lately")
      ->capture_default_str();
  flag(c, "--repeat-last-n", s.repeat_last_n, "How far back penalties look; -1: everything")
      ->capture_default_str();
  flag(c, "--typical", s.typical_p, "Keep those of the most expected surprise that sum to p; 1: all")
      ->capture_default_str();
  flag(c, "--top-nsigma", s.top_n_sigma, "Keep logits within n standard deviations of the largest; -1: all")
      ->capture_default_str();
  flag(c, "--xtc-probability", s.xtc_probability,
       "How often the top choices but the last are dropped; 0: never")
      ->capture_default_str();
  flag(c, "--xtc-threshold", s.xtc_threshold, "Probability of a top choice; above 0.5: none is")
      ->capture_default_str();
  add_repeats(c);
  flag(c, "--dynatemp-range", s.dynatemp_range, "Temperatures by entropy, from temp - range to temp + range")
      ->capture_default_str();
  flag(c, "--dynatemp-exp", s.dynatemp_exponent, "Power of the entropy there")->capture_default_str();
  flag(c, "--mirostat", s.mirostat, "Mirostat 1 or 2 in the place of the filters; 0: off")
      ->capture_default_str();
  flag(c, "--mirostat-ent", s.mirostat_tau, "Its target, bits per token")->capture_default_str();
  flag(c, "--mirostat-lr", s.mirostat_eta, "How fast it goes there")->capture_default_str();
  c->add_option("-l,--logit-bias", biases,
                "ID+BIAS or ID-BIAS: added to that token's logit; may be given again")
      ->take_all();
  flag(c, "--samplers", samplers, "The chain of filters, in order, separated by ;")->capture_default_str();
}

void SamplerFlags::add_repeats(CLI::App* c) {
  SamplerOptions& s = options;
  flag(c, "--dry-multiplier", s.dry_multiplier, "Penalty on repeating what stands before; 0: none")
      ->capture_default_str();
  flag(c, "--dry-base", s.dry_base, "Its growth per repeated token")->capture_default_str();
  flag(c, "--dry-allowed-length", s.dry_allowed_length, "Tokens whose repeat costs nothing yet")
      ->capture_default_str();
  flag(c, "--dry-penalty-last-n", s.dry_penalty_last_n, "How far back it looks; -1: everything")
      ->capture_default_str();
  c->add_option("--dry-sequence-breaker", breakers,
                "Text that no repeat goes beyond; may be given again; none: nothing; default: newline : \" *")
      ->take_all();
}

SamplerOptions SamplerFlags::sampler() const {
  SamplerOptions out = options;
  if (!breakers.empty()) out.dry_sequence_breakers = breakers;
  std::erase(out.dry_sequence_breakers, "none");
  for (const std::string& text : biases) out.logit_bias.push_back(bias_of(text));
  out.chain = split(samplers, ';');
  check(out);
  out.seed = seed < 0 ? std::random_device()() : uint64_t(seed);
  return out;
}

}  // namespace plumb
