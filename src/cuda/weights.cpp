#include "cuda/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace plumb::cuda {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }
int64_t padded(int64_t columns) { return (columns + 31) / 32 * 32; }

// Which weights are matrices, and which are vectors.
void classify(const Program& p, std::vector<bool>& is_matrix, std::vector<bool>& is_vector) {
  const auto mark = [](std::vector<bool>& list, Weight w) {
    if (w >= 0) list[size_t(w)] = true;
  };
  for (const Node& n : p.nodes) {
    if (const auto* e = std::get_if<Embed>(&n.op)) mark(is_matrix, e->table);
    if (const auto* l = std::get_if<Linear>(&n.op)) mark(is_matrix, l->w), mark(is_vector, l->bias);
    if (const auto* r = std::get_if<RmsNorm>(&n.op)) mark(is_vector, r->w);
  }
}

}  // namespace

DeviceBuffer::DeviceBuffer(const Api& api, Context* context, int64_t bytes, const std::string& purpose)
    : api_(&api), context_(context) {
  if (bytes <= 0) return;
  const char* error = api.allocate(context, bytes, &data_);
  int64_t free = 0;
  if (error && !api.memory(context, &free)) {
    throw Error({.code = "memory.device",
                 .expected = fmt::format("{} bytes of device memory for {}", bytes, purpose),
                 .found = fmt::format("{} bytes free: {}", free, error),
                 .remedy = "lower -c, or --fit, which leaves layers that do not fit to the CPU"});
  }
  check(error, fmt::format("{} bytes of device memory for {}", bytes, purpose));
}

DeviceBuffer::~DeviceBuffer() {
  if (data_) api_->release(context_, data_);
}

void DeviceBuffer::swap(DeviceBuffer& other) noexcept {
  std::swap(api_, other.api_), std::swap(context_, other.context_), std::swap(data_, other.data_);
}

HostBuffer::~HostBuffer() {
  if (data_) api_->release_host(context_, data_);
}

std::span<float> HostBuffer::floats(const Api& api, Context* context, int64_t n) {
  if (n > floats_) {
    if (data_) api_->release_host(context_, data_);
    api_ = &api, context_ = context, data_ = nullptr, floats_ = 0;
    check(api.allocate_host(context, n * 4, &data_), fmt::format("{} bytes of pinned memory", n * 4));
    floats_ = n;
  }
  return {static_cast<float*>(data_), size_t(n)};
}

Weights::Weights(const Program& program, const Api& api, Context* context)
    : api_(api), context_(context), matrices_(program.weights.size()), vectors_(program.weights.size()) {
  std::vector<bool> is_matrix(program.weights.size()), is_vector(program.weights.size());
  classify(program, is_matrix, is_vector);
  for (size_t w = 0; w < program.weights.size(); ++w) {
    const WeightRef& ref = program.weights[w];
    if (is_vector[w]) {
      vectors_[w] = buffers_.emplace_back(api, context, padded(ref.columns) * 4, ref.name).floats();
    }
    if (is_matrix[w]) {
      const MatrixFormat format = *matrix_format(ref.format);
      const Planes p = planes(format, ref.columns);
      const int64_t rows = rows_in_memory(format, ref.rows);
      const int64_t q = aligned(p.q * rows), h = aligned(p.h * rows), s = aligned(p.s * rows);
      const uint8_t* data = buffers_.emplace_back(api, context, q + h + s + p.d * rows, ref.name).data();
      const int64_t whole = ref.whole_rows > 0 ? ref.whole_rows : ref.rows;
      matrices_[w] = {data,   data + q,      data + q + h,     data + q + h + s,
                      format, int(ref.rows), int(ref.columns), int(whole)};
    }
  }
}

Weights::Weights(const Program& program, const Api& api, Context* context, Pool& pool,
                 const std::function<void(double)>& progress)
    : Weights(program, api, context) {
  for (size_t w = 0; w < program.weights.size(); ++w) {
    const WeightRef& ref = program.weights[w];
    if (vectors_[w]) {
      std::vector<float> values(size_t(padded(ref.columns)));
      decode(ref.format, ref.data, ref.columns, values.data());
      check(api.upload(context, const_cast<float*>(vectors_[w]), values.data(), padded(ref.columns) * 4),
            "copy " + ref.name);
    }
    if (matrices_[w].q) upload_matrix(ref, matrices_[w], pool);
    progress(double(w + 1) / double(program.weights.size()));
  }
}

// In slices of about 64 MB, each repacked by all threads.
void Weights::upload_matrix(const WeightRef& ref, const Matrix& to, Pool& pool) {
  constexpr int64_t kRowsPerUnit = kTileRows;
  const auto format = MatrixFormat(to.format);
  const Planes p = planes(format, ref.columns);
  const int64_t most =
      std::max<int64_t>(kRowsPerUnit, (int64_t(1) << 26) / p.sum() / kRowsPerUnit * kRowsPerUnit);
  std::vector<uint8_t> staging(size_t(std::min(most, rows_in_memory(format, ref.rows)) * p.sum()));
  for (int64_t first = 0; first < ref.rows; first += most) {
    const int64_t rows = std::min(most, ref.rows - first);
    const int64_t room = rows_in_memory(format, rows);
    uint8_t *q = staging.data(), *h = q + room * p.q, *s = h + room * p.h, *d = s + room * p.s;
    pool.run([&](int) {
      const int units = int((rows + kRowsPerUnit - 1) / kRowsPerUnit);
      for (int u; (u = pool.claim(units)) >= 0;) {
        const int64_t r = u * kRowsPerUnit, n = std::min(kRowsPerUnit, rows - r);
        repack(ref, first + r, n, q + r * p.q, h + r * p.h, s + r * p.s, d + r * p.d);
      }
    });
    const std::pair<const uint8_t*, const uint8_t*> parts[] = {{to.q, q}, {to.h, h}, {to.s, s}, {to.d, d}};
    const int64_t bytes[] = {p.q, p.h, p.s, p.d};
    for (int i = 0; i < 4; ++i) {
      if (bytes[i] == 0) continue;
      uint8_t* target = const_cast<uint8_t*>(parts[i].first) + first * bytes[i];
      check(api_.upload(context_, target, parts[i].second, room * bytes[i]), "copy " + ref.name);
    }
  }
}

}  // namespace plumb::cuda
