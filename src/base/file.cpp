#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace plumb {
namespace {

[[noreturn]] void fail(const char* code, const char* expected, const std::string& path) {
  throw Error({.code = code, .expected = expected, .found = std::strerror(errno), .where = {.file = path}});
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

int open_readable(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("file.open", "a readable file", path);
  return fd;
}

int64_t regular_size(int fd, const std::string& path) {
  struct stat s = {};
  if (::fstat(fd, &s) != 0) fail("file.open", "a readable file", path);
  if (!S_ISREG(s.st_mode)) {
    throw Error({.code = "file.open",
                 .expected = "a regular file",
                 .found = S_ISDIR(s.st_mode) ? "a folder" : "a device, pipe or socket",
                 .where = {.file = path}});
  }
  return s.st_size;
}

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
  const Descriptor fd(open_readable(path));
  MappedFile m;
  m.size_ = size_t(regular_size(fd.get(), path));
  if (m.size_ == 0) return m;
  void* p = ::mmap(nullptr, m.size_, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (p == MAP_FAILED) {
    m.size_ = 0;
    fail("file.map", "a file that can be mapped into memory", path);
  }
  m.data_ = static_cast<const uint8_t*>(p);
  return m;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<uint8_t*>(data_), size_);
}

void forget_pages(std::span<const uint8_t> mapped) {
  const auto page = uintptr_t(::sysconf(_SC_PAGESIZE)), begin = reinterpret_cast<uintptr_t>(mapped.data());
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + mapped.size()) / page * page;
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

std::string read_file(const std::string& path, int64_t limit) {
  const Descriptor fd(open_readable(path));
  std::string out;
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("file.read", "a readable file", path);
    if (n == 0) return out;
    if (int64_t(out.size()) + n > limit) {
      throw Error({.code = "file.too_large",
                   .expected = fmt::format("at most {} bytes", limit),
                   .found = "more",
                   .where = {.file = path}});
    }
    out.append(buffer, size_t(n));
  }
}

void write_all(int fd, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error({.code = "file.write", .expected = "to write", .found = std::strerror(errno)});
    bytes = bytes.subspan(size_t(n));
  }
}

void atomic_replace(const std::string& path, const std::function<void(int fd)>& writer) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  std::string temporary = path + ".XXXXXX";
  const Descriptor fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (fd.get() < 0) fail("file.write", "to create a file", path);
  try {
    writer(fd.get());
    const mode_t mask = ::umask(0);
    ::umask(mask);
    if (::fchmod(fd.get(), 0666 & ~mask) != 0 || ::fsync(fd.get()) != 0) fail("file.write", "to write", path);
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail("file.write", "to rename into place", path);
  } catch (const Error& e) {
    ::unlink(temporary.c_str());
    if (!e.where().file.empty()) throw;
    throw Error({.code = e.code(), .expected = e.expected(), .found = e.found(), .where = {.file = path}});
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const Descriptor dir(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir.get() >= 0) ::fsync(dir.get());
}

void atomic_replace(const std::string& path, std::string_view contents) {
  atomic_replace(path, [&](int fd) {
    write_all(fd, {reinterpret_cast<const uint8_t*>(contents.data()), contents.size()});
  });
}

}  // namespace plumb
