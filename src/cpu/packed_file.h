// Packed weights of a model in a file of their own, mapped when the model is loaded again. Another model,
// another layout, a cut or flipped file: all are told by key and checksums and count as absent. Nothing waits
// for the disk: what a crash leaves incomplete, the checksums reject.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/pool.h"

namespace plumb {

/// One matrix in the file: bytes from the start of the packed data.
struct PackedPart {
  int64_t offset, bytes;
};

class PackedFile {
 public:
  /// The file at `path` if it was kept under `key` with just these parts and every checksum is right; else
  /// empty. What is found was used now, by its time of access. Reads everything, on all threads, until it has
  /// once been found right a minute after it was written; from then on only if somebody wrote to it since.
  static PackedFile find(const std::string& path, uint64_t key, const std::vector<PackedPart>& parts,
                         Pool& pool);

  /// A new file beside `path`, to be written through data(), zero so far; `source` is the model's own path.
  /// Empty if the folder cannot be written or has no room for it (packed_folder.h).
  static PackedFile create(const std::string& path, const std::vector<PackedPart>& parts,
                           const std::string& source);

  /// The path of the model that the file at `path` was made from, if it is such a file.
  static std::optional<std::string> source_of(const std::string& path);

  PackedFile() = default;
  PackedFile(PackedFile&& other) noexcept { *this = std::move(other); }
  PackedFile& operator=(PackedFile&& other) noexcept;
  ~PackedFile();

  bool empty() const { return !map_; }
  uint8_t* data() const { return map_ + offset_; }

  /// Seals what create() gave and data() received, under its final name; data() stays where it is. False if
  /// the system refuses the name: then the file is gone when this object is.
  bool keep(uint64_t key, const std::vector<PackedPart>& parts, Pool& pool);

 private:
  static PackedFile read(int fd, uint64_t key, const std::vector<PackedPart>& parts, Pool& pool);

  uint8_t* map_ = nullptr;
  int64_t bytes_ = 0, offset_ = 0;  // of the map; of the packed data in it
  std::string path_, temporary_;
};

/// 64 bits that change with every byte of `bytes`.
uint64_t checksum(const uint8_t* bytes, int64_t count);
inline uint64_t checksum(std::string_view text) {
  return checksum(reinterpret_cast<const uint8_t*>(text.data()), int64_t(text.size()));
}

}  // namespace plumb
