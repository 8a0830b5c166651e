#include "trace/writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"

namespace plumb::trace {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const char* expected, const std::string& path) {
  throw Error(
      {.code = "file.write", .expected = expected, .found = std::strerror(errno), .where = {.file = path}});
}

// What may be replaced: nothing, or an older trace.
void check_free(const std::string& path) {
  struct stat s{};
  if (::lstat(path.c_str(), &s) != 0) return;
  if (S_ISDIR(s.st_mode) && ::access((path + "/trace.json").c_str(), F_OK) == 0) return;
  throw Error({.code = "trace.exists",
               .expected = "a new name, or a trace to replace",
               .found = S_ISDIR(s.st_mode) ? "another folder" : "a file",
               .where = {.file = path}});
}

std::string shard_name(size_t number) { return fmt::format("values-{:05}.safetensors", number); }

void write_bytes(int fd, std::span<const uint8_t> bytes, const std::string& path) {
  try {
    write_all(fd, bytes);
  } catch (const Error& e) {
    throw Error({.code = e.code(), .expected = e.expected(), .found = e.found(), .where = {.file = path}});
  }
}

void close_file(int fd, bool durable, const std::string& path) {
  const bool synced = !durable || ::fsync(fd) == 0;
  if (::close(fd) != 0 || !synced) fail("to write", path);
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

Writer::Writer(std::string path, bool durable)
    : path_(std::move(path)), records_(nullptr, &std::fclose), durable_(durable) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  check_free(path_);
  folder_ = path_ + ".XXXXXX";
  if (!::mkdtemp(folder_.data())) {
    folder_.clear();
    fail("to create a folder", path_);
  }
  records_.reset(std::fopen((folder_ + "/records.jsonl").c_str(), "we"));
  if (!records_) {
    const int reason = errno;
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
    errno = reason;
    fail("to create a file", path_);
  }
}

Writer::~Writer() {
  if (shard_ >= 0) ::close(shard_);
  std::error_code ignored;
  if (!finished_) fs::remove_all(folder_, ignored);
}

void Writer::add(Record r, std::span<const float> rows) {
  PLUMB_CHECK(!finished_);
  if (!rows.empty()) {
    PLUMB_CHECK(int64_t(rows.size()) == r.tokens * r.row_size());
    r.tensor = fmt::format("{}@{}", r.name(), r.first);
    const int64_t bytes = int64_t(rows.size_bytes()), index = int64_t(r.tensor.size()) + 160;
    if (shard_ >= 0 && (shard_bytes_ + bytes > kShardBytes || index_bytes_ + index > kIndexBytes))
      close_shard();
    if (shard_ < 0) open_shard();
    r.shard = int(shards_.size()) + 1;
    Entry e{r.tensor, {r.tokens}, shard_bytes_, shard_bytes_ + bytes};
    if (r.heads > 0) e.shape.push_back(r.heads);
    e.shape.push_back(r.dim);
    entries_.push_back(std::move(e));
    shard_bytes_ += bytes, index_bytes_ += index;
    write_bytes(shard_, {reinterpret_cast<const uint8_t*>(rows.data()), rows.size_bytes()}, path_);
  }
  const std::string line = dump(to_json(r)) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), records_.get()) != line.size()) fail("to write", path_);
  ++count_;
}

void Writer::open_shard() {
  const std::string file = folder_ + "/" + shard_name(shards_.size() + 1);
  shard_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (shard_ < 0 || ::lseek(shard_, 8 + kIndexBytes, SEEK_SET) < 0) fail("to create a file", path_);
  entries_.clear(), shard_bytes_ = index_bytes_ = 0;
}

void Writer::close_shard() {
  if (shard_ < 0) return;
  Json index;
  for (const Entry& e : entries_) {
    Json t;
    t.set("dtype", "F32"), t.set("shape", Json::Array(e.shape.begin(), e.shape.end()));
    t.set("data_offsets", Json::Array{e.begin, e.end});
    index.set(e.name, std::move(t));
  }
  std::string text = dump(index);
  PLUMB_CHECK(int64_t(text.size()) <= kIndexBytes);
  text.resize(size_t(kIndexBytes), ' ');
  std::string head(8, '\0');
  uint64_t length = text.size();
  for (char& c : head) c = char(length & 255), length >>= 8;
  head += text;
  if (::lseek(shard_, 0, SEEK_SET) < 0) fail("to write", path_);
  write_bytes(shard_, {reinterpret_cast<const uint8_t*>(head.data()), head.size()}, path_);
  close_file(std::exchange(shard_, -1), durable_, path_);
  Json shard;
  shard.set("file", shard_name(shards_.size() + 1)), shard.set("bytes", 8 + kIndexBytes + shard_bytes_);
  shards_.push_back(std::move(shard));
}

void Writer::finish(Json header) {
  close_shard();
  FILE* records = records_.release();
  const bool written = std::fflush(records) == 0 && (!durable_ || ::fsync(::fileno(records)) == 0);
  if (std::fclose(records) != 0 || !written) fail("to write", path_);
  header.set("records", count_), header.set("shards", std::move(shards_));
  const std::string text = dump(header, {.indent = 1}) + "\n";
  const int fd = ::open((folder_ + "/trace.json").c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) fail("to create a file", path_);
  write_bytes(fd, {reinterpret_cast<const uint8_t*>(text.data()), text.size()}, path_);
  close_file(fd, durable_, path_);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::chmod(folder_.c_str(), 0777 & ~mask);
  if (durable_) sync_folder(folder_);
  check_free(path_);
  std::error_code ignored;
  const std::string old = folder_ + ".old";
  const bool replaced = ::rename(path_.c_str(), old.c_str()) == 0;
  if (::rename(folder_.c_str(), path_.c_str()) != 0) {
    if (replaced) ::rename(old.c_str(), path_.c_str());
    fail("to rename into place", path_);
  }
  finished_ = true;
  if (replaced) fs::remove_all(old, ignored);
  const std::string parent = fs::path(path_).parent_path().string();
  if (durable_) sync_folder(parent.empty() ? "." : parent);
}

}  // namespace plumb::trace
