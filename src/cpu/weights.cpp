#include "cpu/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "base/file.h"
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

// Of what the packed bytes are made: the file's stamp and the matrices.
uint64_t cache_key(const Program& p, const std::vector<bool>& is_matrix, uint64_t stamp) {
  std::string text = fmt::format("{} {}", kPackedVersion, stamp);
  for (size_t w = 0; w < p.weights.size(); ++w) {
    if (is_matrix[w]) text += sampled(p.weights[w]);
  }
  return checksum(text);
}

// Gives back the pages of groups that are packed, or of which samples were read.
void forget_groups(const WeightRef& w, int64_t first, int64_t last) {
  const int64_t stride = row_bytes(w.format, w.columns), end = std::min(w.rows, 16 * last);
  if (end > 16 * first) forget_pages({w.data + 16 * first * stride, size_t((end - 16 * first) * stride)});
}

}  // namespace

std::string sampled(const WeightRef& w) {
  constexpr int64_t kSample = 4096;
  const int64_t bytes = w.rows * row_bytes(w.format, w.columns), sample = std::min(bytes, kSample);
  std::string text = fmt::format(" {} {} {} {}", w.name, w.rows, w.columns, info(w.format).name);
  for (int64_t at : {int64_t(0), (bytes - sample) / 2, bytes - sample})
    text += fmt::format(" {}", checksum(w.data + at, sample));
  return text;
}

std::vector<CpuWeights::Group> CpuWeights::lay_out(const Program& program, std::vector<PackedPart>& parts) {
  std::vector<Group> groups;
  int64_t total = 0;
  for (size_t w = 0; w < program.weights.size(); ++w) {
    const int64_t bytes = matrices_[w].group_bytes;
    if (bytes == 0) continue;
    const int64_t first = total,
                  count = (program.weights[w].rows + 31) / 32 * 2;  // whole pairs: tiles of 32 rows
    for (int64_t g = 0; g < count; ++g, total += bytes) groups.push_back({w, g, total});
    parts.push_back({first, total - first});
    total = (total + 63) / 64 * 64;
  }
  return groups;
}

// While a unit is packed its rows are in memory twice, not the whole model.
void CpuWeights::pack(const Program& program, const std::vector<Group>& groups, uint8_t* to, Pool& pool,
                      bool forget, const std::function<void(double)>& progress) const {
  std::atomic<int64_t> done = 0;
  pool.run([&](int thread) {
    constexpr int kPerUnit = 32;
    for (int u; (u = pool.claim(int((groups.size() + kPerUnit - 1) / kPerUnit))) >= 0;) {
      const size_t end = std::min(groups.size(), size_t(u + 1) * kPerUnit);
      for (size_t i = size_t(u) * kPerUnit, first = i; i < end; ++i) {
        const Group& g = groups[i];
        plumb::pack(program.weights[g.weight], g.index, to + g.offset);
        if (i + 1 < end && groups[i + 1].weight == g.weight) continue;
        if (forget) forget_groups(program.weights[g.weight], groups[first].index, g.index + 1);
        first = i + 1;
      }
      done.fetch_add(int64_t(end) - u * kPerUnit, std::memory_order_relaxed);
      if (thread == 0) progress(double(done.load()) / double(groups.size()));
    }
  });
}

CpuWeights::CpuWeights(const Program& program, Pool& pool, const PackedCache& cache,
                       const std::function<void(double)>& progress)
    : matrices_(program.weights.size()), vectors_(program.weights.size()) {
  std::vector<bool> is_matrix(program.weights.size()), is_vector(program.weights.size());
  classify(program, is_matrix, is_vector);
  for (size_t w = 0; w < program.weights.size(); ++w) {
    const WeightRef& ref = program.weights[w];
    if (is_vector[w]) {
      vectors_[w].resize(size_t((ref.columns + 31) / 32 * 32));
      decode(ref.format, ref.data, ref.columns, vectors_[w].data());
    }
    if (is_matrix[w]) matrices_[w] = {ref.data, packed_group_bytes(ref.format, int(ref.columns))};
  }
  std::vector<PackedPart> parts;
  const std::vector<Group> groups = lay_out(program, parts);
  const bool cached = !cache.path.empty() && !groups.empty();
  const uint64_t key = cached ? cache_key(program, is_matrix, cache.stamp) : 0;
  if (cached) file_ = PackedFile::find(cache.path, key, parts, pool);
  if (file_.empty() && !groups.empty()) {
    if (cached) file_ = PackedFile::create(cache.path, parts, cache.source);
    if (file_.empty()) packed_ = Buffer(parts.back().offset + parts.back().bytes);
    pack(program, groups, file_.empty() ? packed_.data() : file_.data(), pool, cache.source_is_map, progress);
    if (!file_.empty()) file_.keep(key, parts, pool);
  }
  for (size_t w = 0; w < program.weights.size(); ++w) {
    if (cache.source_is_map && matrices_[w].group_bytes > 0)
      forget_groups(program.weights[w], 0, (program.weights[w].rows + 15) / 16);
  }
  const uint8_t* data = file_.empty() ? packed_.data() : file_.data();
  for (const Group& g : groups) {
    if (g.index == 0) matrices_[g.weight].groups = data + g.offset;
  }
}

}  // namespace plumb
