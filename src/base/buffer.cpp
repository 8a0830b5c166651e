#include "base/buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include "base/error.h"

namespace plumb {

Buffer::Buffer(int64_t bytes, Pages pages) : bytes_(bytes) {
  if (bytes == 0) return;
  void* p = ::mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    throw Error(
        {.code = "memory.allocate", .expected = fmt::format("{} bytes of memory", bytes), .found = "less"});
  }
  data_ = static_cast<uint8_t*>(p);
  constexpr int64_t kHugePage = 1 << 21;
  if (pages == Pages::huge && bytes >= kHugePage) ::madvise(p, size_t(bytes), MADV_HUGEPAGE);  // only advice
}

Buffer::~Buffer() {
  if (data_) ::munmap(data_, size_t(bytes_));
}

}  // namespace plumb
