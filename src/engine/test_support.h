// What the tests of runners and sequences share. Tests only.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/runner.h"
#include "engine/tiny_model.h"

namespace plumb::testing {

inline std::vector<int> prompt(int n, int seed = 1) {
  std::vector<int> ids;
  for (int i = 0; i < n; ++i) ids.push_back((i * 17 + i * i * 3 + seed * 11) % TinyModel::kVocab);
  return ids;
}

/// After the last id, by a runner of its own.
inline std::vector<float> logits(const Model& model, const RunnerOptions& options,
                                 const std::vector<int>& ids) {
  const std::unique_ptr<Runner> runner = Runner::make(model, options);
  const std::span<const float> l = runner->decode(ids);
  return {l.begin(), l.end()};
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// Of the Error that f throws.
template <class F>
std::string code_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code();
  }
  return "nothing thrown";
}

}  // namespace plumb::testing
