#include "base/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/limits.h"

namespace plumb {
namespace {

constexpr size_t kHead = 8;  // bytes before a payload

[[noreturn]] void fail_journal(const char* code, const char* expected, const std::string& path) {
  throw Error({.code = code, .expected = expected, .found = std::strerror(errno), .where = {.file = path}});
}

void put_u32(std::string& out, uint32_t v) {
  for (int shift = 0; shift < 32; shift += 8) out += char(uint8_t(v >> shift));
}

uint32_t get_u32(std::string_view bytes) {
  uint32_t v = 0;
  for (int i = 3; i >= 0; --i) v = (v << 8) | uint8_t(bytes[size_t(i)]);
  return v;
}

std::string record_of(std::string_view payload) {
  std::string out;
  put_u32(out, uint32_t(payload.size()));
  put_u32(out, crc32c(payload, crc32c(out)));
  return out.append(payload);
}

// The folder's entry of a new file must be on the disk too.
void sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

uint32_t crc32c(std::string_view bytes, uint32_t crc) {
  static constexpr auto kTable = [] {
    std::array<uint32_t, 256> table = {};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t v = i;
      for (int bit = 0; bit < 8; ++bit) v = (v >> 1) ^ (0x82F63B78u & (0u - (v & 1)));
      table[i] = v;
    }
    return table;
  }();
  crc = ~crc;
  for (const char c : bytes) crc = kTable[(crc ^ uint8_t(c)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

JournalContents parse_journal(std::string_view bytes, const std::string& name) {
  if (bytes.substr(0, kJournalMagic.size()) != kJournalMagic.substr(0, bytes.size())) {
    throw Error({.code = "journal.format",
                 .expected = fmt::format("a journal, which begins with {}", kJournalMagic),
                 .found = printable(bytes.substr(0, kJournalMagic.size())),
                 .where = {.file = name, .offset = 0}});
  }
  JournalContents out;
  size_t at = kJournalMagic.size();
  if (bytes.size() < at) {  // cut while it was made
    out.torn_bytes = int64_t(bytes.size());
    return out;
  }
  while (bytes.size() - at >= kHead) {
    const std::string_view head = bytes.substr(at, kHead);
    const uint32_t size = get_u32(head);
    if (size > kMaxJournalRecordBytes || size > bytes.size() - at - kHead) break;
    const std::string_view payload = bytes.substr(at + kHead, size);
    if (crc32c(payload, crc32c(head.substr(0, 4))) != get_u32(head.substr(4))) break;
    out.records.emplace_back(payload);
    at += kHead + size;
  }
  out.good_bytes = int64_t(at);
  out.torn_bytes = int64_t(bytes.size() - at);
  return out;
}

JournalContents read_journal(const std::string& path) {
  return parse_journal(read_file(path, kMaxJournalBytes), path);
}

Journal::Journal(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) fail_journal("journal.open", "to open or make the file", path);
  try {
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) fail_journal("journal.open", "to lock the file", path);
      throw Error({.code = "journal.used",
                   .expected = "a journal that no other program has open",
                   .found = "that one has",
                   .where = {.file = path}});
    }
    load();
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

void Journal::load() {
  const std::string bytes = read_file(path_, kMaxJournalBytes);
  JournalContents found = parse_journal(bytes, path_);
  if (found.torn_bytes > 0) {
    keep_torn(std::string_view(bytes).substr(size_t(found.good_bytes)));
    if (::ftruncate(fd_, found.good_bytes) != 0 || ::fsync(fd_) != 0)
      fail_journal("journal.open", "to cut off a torn record", path_);
  }
  records_ = std::move(found.records);
  torn_ = found.torn_bytes;
  end_ = found.good_bytes;
  if (end_ == 0) {
    write_at_end(kJournalMagic);
    sync_folder_of(path_);
  }
}

void Journal::keep_torn(std::string_view bytes) const {
  const std::string path = path_ + ".torn";
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) fail_journal("journal.open", "to keep a torn record", path);
  try {
    write_all(fd, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  } catch (...) {
    ::close(fd);
    throw;
  }
  const bool kept = ::fsync(fd) == 0;
  ::close(fd);
  if (!kept) fail_journal("journal.open", "to keep a torn record", path);
}

Journal::Journal(Journal&& other) noexcept
    : path_(std::move(other.path_)),
      records_(std::move(other.records_)),
      fd_(std::exchange(other.fd_, -1)),
      end_(other.end_),
      torn_(other.torn_) {}

Journal::~Journal() {
  if (fd_ >= 0) ::close(fd_);
}

void Journal::write_at_end(std::string_view bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done, end_ + int64_t(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    done += size_t(n);
  }
  if (done == bytes.size() && ::fdatasync(fd_) == 0) {
    end_ += int64_t(bytes.size());
    return;
  }
  const int reason = errno;
  // Should this fail as well, the next opening finds a torn record.
  [[maybe_unused]] const int ignored = ::ftruncate(fd_, end_);
  errno = reason;
  fail_journal("journal.write", "to write a record", path_);
}

void Journal::append(std::string_view payload) {
  if (int64_t(payload.size()) > kMaxJournalRecordBytes || end_ > kMaxJournalBytes - kMaxJournalRecordBytes) {
    throw Error({.code = "journal.too_large",
                 .expected = fmt::format("a record of at most {} bytes in a file of at most {}",
                                         kMaxJournalRecordBytes, kMaxJournalBytes),
                 .found = fmt::format("{} bytes after {}", payload.size(), end_),
                 .where = {.file = path_}});
  }
  write_at_end(record_of(payload));
}

}  // namespace plumb
