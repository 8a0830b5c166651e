// What an ambiguous label of a log means, told from the numbers themselves.
#pragma once

#include <string>
#include <vector>

#include "trace/trace.h"

namespace plumb::trace {

/// A label that could mean several values, and what its numbers say it is.
struct SettledLabel {
  std::string label, value;
  std::string why;
};

/// Gives records their values: `blk.L.in` the one it stands for, and a label of several meanings the one that
/// residual arithmetic leaves: rms(out)^2 = rms(in)^2 + rms(attention)^2 + rms(ffn)^2 if the label means the
/// branches, rms(out) = rms(ffn) if it means the stream. Records that stay unclear keep no value.
std::vector<SettledLabel> settle_labels(std::vector<Record>& records, const std::string& arch);

}  // namespace plumb::trace
