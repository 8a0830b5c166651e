// Files: read-only maps, whole-file reads, and the only way in which Plumb replaces a file.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace plumb {

/// A whole file mapped read-only. Empty files give an empty span.
class MappedFile {
 public:
  /// Throws Error "file.open" or "file.map" with the path and the system's reason.
  static MappedFile open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

/// Gives the whole pages of these bytes of mapped files back to the system, which reads them again when they
/// are needed.
void forget_pages(std::span<const uint8_t> mapped);

/// The whole file, at most `limit` bytes; throws Error "file.open", "file.read" or "file.too_large".
std::string read_file(const std::string& path, int64_t limit);

/// Writes through `writer(fd)` to a temporary file beside `path`, syncs it, renames it over `path` and syncs
/// the folder. On any failure, also an exception of the writer, the old file stays as it was and nothing is
/// left behind.
void atomic_replace(const std::string& path, const std::function<void(int fd)>& writer);

/// Writes all bytes to fd or throws Error "file.write".
void write_all(int fd, std::span<const uint8_t> bytes);

/// atomic_replace with the bytes at hand.
void atomic_replace(const std::string& path, std::string_view contents);

}  // namespace plumb
