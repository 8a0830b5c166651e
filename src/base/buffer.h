// Large aligned buffers, on huge pages where the system gives them.
#pragma once

#include <cstdint>
#include <utility>

namespace plumb {

/// Zeroed bytes aligned to a page; throws Error "memory.allocate" with the size.
class Buffer {
 public:
  /// Small pages cost only what is touched of them, huge ones spare most misses of the address cache.
  enum class Pages { huge, small };

  Buffer() = default;
  explicit Buffer(int64_t bytes, Pages pages = Pages::huge);
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer();

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace plumb
