#include "cpu/weights.h"

#include <algorithm>
#include <atomic>

#include "cpu/linear/linear.h"

namespace plumb {
namespace {

// Which weights are matrices of Linear nodes, and which are vectors.
void classify(const Program& p, std::vector<bool>& is_matrix, std::vector<bool>& is_vector) {
  const auto mark = [](std::vector<bool>& list, Weight w) {
    if (w >= 0) list[size_t(w)] = true;
  };
  for (const Node& n : p.nodes) {
    if (const auto* l = std::get_if<Linear>(&n.op)) mark(is_matrix, l->w), mark(is_vector, l->bias);
    if (const auto* r = std::get_if<RmsNorm>(&n.op)) mark(is_vector, r->w);
    if (const auto* r = std::get_if<Rope>(&n.op)) mark(is_vector, r->factors);
  }
}

// The sixteen rows of a group as they lie in the file; null past the last.
void pack(const WeightRef& w, int64_t group, uint8_t* out) {
  const int64_t stride = row_bytes(w.format, w.columns);
  const uint8_t* rows[16] = {};
  for (int64_t r = 0; r < 16 && group * 16 + r < w.rows; ++r) rows[r] = w.data + (group * 16 + r) * stride;
  pack_group(w.format, rows, int(w.columns), out);
}

}  // namespace

CpuWeights::CpuWeights(const Program& program, Pool& pool, const std::function<void(double)>& progress)
    : matrices_(program.weights.size()), vectors_(program.weights.size()) {
  std::vector<bool> is_matrix(program.weights.size()), is_vector(program.weights.size());
  classify(program, is_matrix, is_vector);
  struct Group {
    size_t weight;
    int64_t index, offset;
  };
  std::vector<Group> groups;
  int64_t total = 0;
  for (size_t w = 0; w < program.weights.size(); ++w) {
    const WeightRef& ref = program.weights[w];
    if (is_vector[w]) {
      vectors_[w].resize(size_t((ref.columns + 31) / 32 * 32));
      decode(ref.format, ref.data, ref.columns, vectors_[w].data());
    }
    if (!is_matrix[w]) continue;
    matrices_[w].group_bytes = packed_group_bytes(ref.format, int(ref.columns));
    matrices_[w].groups = ref.data;
    if (matrices_[w].group_bytes == 0) continue;
    for (int64_t g = 0; g * 16 < (ref.rows + 31) / 32 * 32; ++g) {  // whole pairs of groups: tiles of 32 rows
      groups.push_back({w, g, total});
      total += matrices_[w].group_bytes;
    }
  }
  packed_ = Buffer(total);
  for (const Group& g : groups) {
    if (g.index == 0) matrices_[g.weight].groups = packed_.data() + g.offset;
  }
  std::atomic<int64_t> done = 0;
  pool.run([&](int thread) {
    constexpr int kPerUnit = 32;
    for (int u; (u = pool.claim(int((groups.size() + kPerUnit - 1) / kPerUnit))) >= 0;) {
      const size_t end = std::min(groups.size(), size_t(u + 1) * kPerUnit);
      for (size_t i = size_t(u) * kPerUnit; i < end; ++i) {
        pack(program.weights[groups[i].weight], groups[i].index, packed_.data() + groups[i].offset);
      }
      done.fetch_add(int64_t(end) - u * kPerUnit, std::memory_order_relaxed);
      if (thread == 0) progress(double(done.load()) / double(groups.size()));
    }
  });
}

}  // namespace plumb
