#include "cpu/packed_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <ctime>
#include <utility>

#include "cpu/packed_folder.h"

namespace plumb {
namespace {

// The file: this header, a checksum of every part, the packed data from the next page, the path of the model.
struct Header {
  char magic[8];
  uint64_t key, parts, bytes;  // of the packed data
  uint64_t table;              // checksum of the checksums
  uint64_t source;             // bytes of the path
};
constexpr char kMagic[8] = {'P', 'L', 'U', 'M', 'B', 'P', '1', '6'};
constexpr int64_t kPage = 4096;
constexpr uint64_t kLongestPath = 4096;  // Linux's PATH_MAX

int64_t data_offset(size_t parts) {
  return (int64_t(sizeof(Header) + parts * 8) + kPage - 1) / kPage * kPage;
}

int64_t packed_bytes(const std::vector<PackedPart>& parts) {
  return parts.empty() ? 0 : parts.back().offset + parts.back().bytes;
}

std::vector<uint64_t> checksums(const uint8_t* data, const std::vector<PackedPart>& parts, Pool& pool) {
  std::vector<uint64_t> sums(parts.size());
  pool.each(int(parts.size()), [&](int i) {
    const PackedPart& part = parts[size_t(i)];
    sums[size_t(i)] = checksum(data + part.offset, part.bytes);
  });
  return sums;
}

uint64_t table_checksum(const std::vector<uint64_t>& sums) {
  return checksum(reinterpret_cast<const uint8_t*>(sums.data()), int64_t(sums.size()) * 8);
}

// A file whose data were found right and are on the disk says so by the nanoseconds of its time of change,
// which any later write moves.
bool known_right(const struct stat& s, uint64_t key) {
  return uint64_t(s.st_mtim.tv_nsec) == key % 1'000'000'000;
}
void say_right(int fd, const struct stat& s, uint64_t key) {
  constexpr time_t kSettled = 60;  // seconds, after which waiting for the disk takes no time
  if (::time(nullptr) - s.st_mtim.tv_sec < kSettled || ::fdatasync(fd) != 0) return;
  const timespec times[2] = {{0, UTIME_OMIT}, {s.st_mtim.tv_sec, long(key % 1'000'000'000)}};
  ::futimens(fd, times);  // if it fails, the next load reads everything again
}
// Not left to the file system, which may be mounted not to do it.
void say_used(int fd) {
  const timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ::futimens(fd, times);
}

}  // namespace

// Four chains of multiplications, as much as memory delivers.
uint64_t checksum(const uint8_t* bytes, int64_t count) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15ull;
  uint64_t h[4] = {1, 2, 3, uint64_t(count)};
  const auto mix = [&](int lane, uint64_t word) {
    h[lane] = (h[lane] ^ word) * kOdd;
    h[lane] ^= h[lane] >> 29;
  };
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    uint64_t words[4];
    std::memcpy(words, bytes + i, 32);
    for (int lane = 0; lane < 4; ++lane) mix(lane, words[lane]);
  }
  for (; i < count; ++i) mix(0, bytes[i]);
  for (int lane = 1; lane < 4; ++lane) mix(0, h[lane]);
  return h[0];
}

PackedFile PackedFile::find(const std::string& path, uint64_t key, const std::vector<PackedPart>& parts,
                            Pool& pool) {
  PackedFile f;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return f;
  f = read(fd, key, parts, pool);
  ::close(fd);
  return f;
}

PackedFile PackedFile::read(int fd, uint64_t key, const std::vector<PackedPart>& parts, Pool& pool) {
  PackedFile f;
  const int64_t offset = data_offset(parts.size()), bytes = offset + packed_bytes(parts);
  struct stat s = {};
  if (::fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_size >= bytes) {
    void* p = ::mmap(nullptr, size_t(bytes), PROT_READ, MAP_PRIVATE, fd, 0);
    if (p != MAP_FAILED) f.map_ = static_cast<uint8_t*>(p), f.bytes_ = bytes, f.offset_ = offset;
  }
  if (f.empty()) return f;
  Header h;
  std::memcpy(&h, f.map_, sizeof h);
  std::vector<uint64_t> sums(parts.size());
  std::memcpy(sums.data(), f.map_ + sizeof h, sums.size() * 8);
  const bool ours = std::memcmp(h.magic, kMagic, sizeof kMagic) == 0 && h.key == key &&
                    h.parts == parts.size() && h.bytes == uint64_t(packed_bytes(parts)) &&
                    h.source == uint64_t(s.st_size - bytes) && h.table == table_checksum(sums);
  if (!ours) return {};
  ::madvise(f.map_, size_t(bytes), MADV_WILLNEED);
  if (!known_right(s, key)) {
    if (checksums(f.data(), parts, pool) != sums) return {};
    say_right(fd, s, key);
  }
  say_used(fd);
  return f;
}

std::optional<std::string> PackedFile::source_of(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOATIME);  // to ask is not to use
  if (fd < 0) return std::nullopt;
  std::optional<std::string> source;
  Header h = {};
  struct stat s = {};
  if (::fstat(fd, &s) == 0 && ::pread(fd, &h, sizeof h, 0) == ssize_t(sizeof h) &&
      std::memcmp(h.magic, kMagic, sizeof kMagic) == 0 && h.source <= kLongestPath) {
    std::string text(h.source, '\0');
    if (::pread(fd, text.data(), text.size(), s.st_size - off_t(text.size())) == ssize_t(text.size()))
      source = std::move(text);
  }
  ::close(fd);
  return source;
}

PackedFile PackedFile::create(const std::string& path, const std::vector<PackedPart>& parts,
                              const std::string& source) {
  PackedFile f;
  const int64_t offset = data_offset(parts.size()), end = offset + packed_bytes(parts);
  const int64_t bytes = end + int64_t(source.size());
  if (!make_packed_room(path, bytes)) return f;
  std::string temporary = path + ".XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return f;
  // The space is taken now: a disk that is full must not show itself as a signal when a page is written.
  void* p = MAP_FAILED;
  if (::posix_fallocate(fd, 0, bytes) == 0)
    p = ::mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (p == MAP_FAILED) {
    ::unlink(temporary.c_str());
    return f;
  }
  f.map_ = static_cast<uint8_t*>(p), f.bytes_ = bytes, f.offset_ = offset;
  std::memcpy(f.map_ + end, source.data(), source.size());
  f.path_ = path, f.temporary_ = std::move(temporary);
  return f;
}

bool PackedFile::keep(uint64_t key, const std::vector<PackedPart>& parts, Pool& pool) {
  const std::vector<uint64_t> sums = checksums(data(), parts, pool);
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.key = key, h.parts = parts.size(), h.bytes = uint64_t(packed_bytes(parts)),
  h.table = table_checksum(sums);
  h.source = uint64_t(bytes_ - offset_ - packed_bytes(parts));
  std::memcpy(map_, &h, sizeof h);
  std::memcpy(map_ + sizeof h, sums.data(), sums.size() * 8);
  ::mprotect(map_, size_t(bytes_), PROT_READ);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return false;
  temporary_.clear();
  return true;
}

PackedFile& PackedFile::operator=(PackedFile&& other) noexcept {
  std::swap(map_, other.map_);
  std::swap(bytes_, other.bytes_);
  std::swap(offset_, other.offset_);
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  return *this;
}

PackedFile::~PackedFile() {
  if (map_) ::munmap(map_, size_t(bytes_));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

}  // namespace plumb
