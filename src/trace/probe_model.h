// The model of a probe file: random weights on which faults show strongly, a vocabulary whose pieces are the
// names of faults, and a head that is still to be found (trace/probe.h).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "quant/format.h"

namespace plumb::trace {

/// The prompt that the file is made for.
inline constexpr const char* kProbePrompt = "which fault is it?";

struct ProbeModel {
  static constexpr int kWidth = 256, kLayers = 3, kHeads = 8, kKvHeads = 2, kFfn = 512, kVocab = 1024;
  static constexpr int kEnd = 2;                              // </s>
  static constexpr int kBack = 320, kOk = 321, kForth = 322;  // "ok" between the names of shifted ids
  static constexpr int kFirstName = 323;                      // to kVocab - 1

  std::vector<Format> formats = {};  // of the matrices, in turn
  uint64_t seed = 1;

  /// The file. `names`: the pieces of ids from kBack on; `head`: [kVocab, kWidth], empty: zeros.
  std::vector<uint8_t> bytes(const std::map<int, std::string>& names, const std::vector<float>& head) const;
};

}  // namespace plumb::trace
