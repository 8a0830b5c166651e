#include "app/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/file.h"

namespace plumb {

void write_npy(const std::string& path, std::span<const double> values, const std::vector<int64_t>& shape,
               bool as_float32) {
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}",
                                   as_float32 ? "<f4" : "<f8", fmt::join(shape, ", "));
  header.append((64 - (header.size() + 11) % 64) % 64,
                ' ');  // magic, version and length are 10 bytes; the end is a newline
  header += '\n';
  atomic_replace(path, [&](int fd) {
    std::string head("\x93NUMPY\x01\x00", 8);
    head += char(header.size() & 255);
    head += char(header.size() >> 8);
    head += header;
    write_all(fd, {reinterpret_cast<const uint8_t*>(head.data()), head.size()});
    if (as_float32) {
      const std::vector<float> narrow(values.begin(), values.end());
      write_all(fd, {reinterpret_cast<const uint8_t*>(narrow.data()), narrow.size() * sizeof(float)});
    } else {
      write_all(fd, {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()});
    }
  });
}

}  // namespace plumb
