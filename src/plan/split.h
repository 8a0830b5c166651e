// What each of several ranks computes of a Program. Matrices are split by rows (those of queries, keys and
// values by kv heads), so that every sum is one rank's alone; what a matrix or a norm reads whole is gathered
// before. Only data moves: the bits are those of one rank, whatever their number.
#pragma once

#include <set>
#include <vector>

#include "program/program.h"

namespace plumb {

struct RankProgram {
  Program program;
  std::vector<Value> whole = {};  // by value of the whole Program: where all of it stands, or -1
};

/// Rank `rank` of `ranks`. The output is gathered, and so are the values `wanted`; all ranks' nodes have the
/// same order. Weight w remains, for what is read whole, and the rank's rows of it become weight w + the
/// number of weights. Throws Error "split.heads", "split.unsupported".
RankProgram rank_program(const Program& program, int rank, int ranks, const std::set<Value>& wanted = {});

/// v, or, where v is put together from all ranks' parts, the part.
inline Value ungathered(const Program& p, Value v) {
  const Node& node = p.nodes[size_t(v)];
  return std::holds_alternative<Gather>(node.op) ? node.in[0] : v;
}

}  // namespace plumb
