#include "app/sampler_flags.h"

#include <random>
#include <utility>
#include <vector>

#include "app/flags.h"

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
  flag(c, "--samplers", samplers, "The chain of filters, in order, separated by ;")->capture_default_str();
}

SamplerOptions SamplerFlags::sampler() const {
  SamplerOptions out = options;
  out.chain = split(samplers, ';');
  check(out);
  out.seed = seed < 0 ? std::random_device()() : uint64_t(seed);
  return out;
}

}  // namespace plumb
