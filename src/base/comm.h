// Ranks: processes, or threads, that run one model together. They exchange whole buffers, in calls that all
// make in the same order, and never add anything up, so that no bit depends on how many they are.
#pragma once

#include <algorithm>
#include <barrier>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace plumb {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// `all` receives what every rank gives, in the order of ranks, bytes[r] of rank r. Throws Error
  /// "comm.failed".
  virtual void all_gather(const void* mine, void* all, std::span<const int64_t> bytes) = 0;
  /// Every rank receives what rank 0 gives. Throws Error "comm.failed".
  virtual void broadcast(void* data, int64_t bytes) = 0;
};

/// Rows of which every rank has a part, sizes[r] elements of rank r, side by side: out [rows, out_stride].
template <class T>
void all_gather_rows(Comm& comm, const T* mine, int64_t stride, int rows, std::span<const int> sizes, T* out,
                     int64_t out_stride) {
  std::vector<int64_t> bytes;
  int64_t width = 0;
  for (int size : sizes) bytes.push_back(int64_t(rows) * size * int64_t(sizeof(T))), width += size;
  if (rows == 1) return comm.all_gather(mine, out, bytes);
  const int64_t own = sizes[size_t(comm.rank())];
  std::vector<T> packed(size_t(rows * own)), all(size_t(rows * width));
  for (int64_t t = 0; t < rows; ++t) std::copy_n(mine + t * stride, own, packed.data() + t * own);
  comm.all_gather(packed.data(), all.data(), bytes);
  const T* from = all.data();
  int64_t first = 0;
  for (int64_t size : sizes) {
    for (int64_t t = 0; t < rows; ++t, from += size) std::copy_n(from, size, out + t * out_stride + first);
    first += size;
  }
}

/// Threads of this process as ranks.
class ThreadComms {
 public:
  explicit ThreadComms(int size);
  ~ThreadComms();
  Comm& of(int rank) const;

 private:
  class Member;
  std::barrier<> barrier_;
  std::vector<const void*> given_;  // by rank, during a call
  std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace plumb
