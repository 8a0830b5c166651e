// The weights of a Program on a device: matrices repacked, vectors in f32.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/pool.h"
#include "cuda/library.h"
#include "cuda/repack.h"

namespace plumb::cuda {

/// Memory on the device; empty for 0 bytes.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// Throws Error "memory.device" that says what the bytes are for.
  DeviceBuffer(const Api& api, Context* context, int64_t bytes, const std::string& purpose);
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer();

  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  float* floats() const { return static_cast<float*>(data_); }
  int* ints() const { return static_cast<int*>(data_); }

 private:
  void swap(DeviceBuffer& other) noexcept;
  const Api* api_ = nullptr;
  Context* context_ = nullptr;
  void* data_ = nullptr;
};

/// Memory of the host that the device copies to without a stop; it grows as needed.
class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer();
  float* data() const { return static_cast<float*>(data_); }
  /// Room for n floats; what was there before is lost when it grows.
  std::span<float> floats(const Api& api, Context* context, int64_t n);

 private:
  const Api* api_ = nullptr;
  Context* context_ = nullptr;
  void* data_ = nullptr;
  int64_t floats_ = 0;
};

class Weights {
 public:
  Weights(const Program& program, const Api& api, Context* context, Pool& pool,
          const std::function<void(double)>& progress);
  /// Only their memory.
  Weights(const Program& program, const Api& api, Context* context);

  const Matrix& matrix(Weight w) const { return matrices_[size_t(w)]; }
  /// Null for w = -1.
  const float* vector(Weight w) const { return w < 0 ? nullptr : vectors_[size_t(w)]; }

 private:
  void upload_matrix(const WeightRef& ref, const Matrix& to, Pool& pool);
  const Api& api_;
  Context* context_;
  std::vector<Matrix> matrices_;       // by weight
  std::vector<const float*> vectors_;  // by weight
  std::vector<DeviceBuffer> buffers_;
};

}  // namespace plumb::cuda
