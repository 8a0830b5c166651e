#include "trace/writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

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

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

Writer::Writer(std::string path) : path_(std::move(path)), records_(nullptr, &std::fclose) {
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
  std::error_code ignored;
  if (!finished_) fs::remove_all(folder_, ignored);
}

void Writer::add(Record r, std::span<const float> rows) {
  PLUMB_CHECK(!finished_);
  const int64_t bytes = int64_t(rows.size_bytes());
  if (!rows.empty()) {
    PLUMB_CHECK(int64_t(rows.size()) == r.tokens * r.row_size());
    if (!data_.empty() && int64_t(data_.size()) + bytes > kShardBytes) flush_shard();
    r.shard = int(shards_.size()) + 1;
    r.tensor = fmt::format("{}@{}", r.name(), r.first);
    Entry e{r.tensor, {r.tokens}, int64_t(data_.size()), int64_t(data_.size()) + bytes};
    if (r.heads > 0) e.shape.push_back(r.heads);
    e.shape.push_back(r.dim);
    entries_.push_back(std::move(e));
    const auto* p = reinterpret_cast<const uint8_t*>(rows.data());
    data_.insert(data_.end(), p, p + bytes);
  }
  const std::string line = dump(to_json(r)) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), records_.get()) != line.size()) fail("to write", path_);
  ++count_;
}

void Writer::write_file(const std::string& name, std::span<const uint8_t> head,
                        std::span<const uint8_t> body) {
  const std::string file = folder_ + "/" + name;
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) fail("to create a file", path_);
  try {
    write_all(fd, head), write_all(fd, body);
  } catch (const Error& e) {
    ::close(fd);
    throw Error({.code = e.code(), .expected = e.expected(), .found = e.found(), .where = {.file = path_}});
  }
  const bool synced = ::fsync(fd) == 0;
  if (::close(fd) != 0 || !synced) fail("to write", path_);
}

void Writer::flush_shard() {
  if (entries_.empty()) return;
  Json index;
  for (const Entry& e : entries_) {
    Json::Array shape(e.shape.begin(), e.shape.end());
    Json t;
    t.set("dtype", "F32"), t.set("shape", std::move(shape));
    t.set("data_offsets", Json::Array{e.begin, e.end});
    index.set(e.name, std::move(t));
  }
  std::string text = dump(index);
  text.append((8 - text.size() % 8) % 8, ' ');
  uint64_t length = text.size();
  std::string head(8, '\0');
  for (char& c : head) c = char(length & 255), length >>= 8;
  head += text;
  const std::string name = fmt::format("values-{:05}.safetensors", shards_.size() + 1);
  write_file(name, {reinterpret_cast<const uint8_t*>(head.data()), head.size()}, data_);
  Json shard;
  shard.set("file", name), shard.set("bytes", int64_t(head.size() + data_.size()));
  shards_.push_back(std::move(shard));
  entries_.clear(), data_.clear();
}

void Writer::finish(Json header) {
  flush_shard();
  FILE* records = records_.release();
  const bool written = std::fflush(records) == 0 && ::fsync(::fileno(records)) == 0;
  if (std::fclose(records) != 0 || !written) fail("to write", path_);
  header.set("records", count_), header.set("shards", std::move(shards_));
  const std::string text = dump(header, {.indent = 1}) + "\n";
  write_file("trace.json", {reinterpret_cast<const uint8_t*>(text.data()), text.size()}, {});
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::chmod(folder_.c_str(), 0777 & ~mask);
  sync_folder(folder_);
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
  sync_folder(parent.empty() ? "." : parent);
}

}  // namespace plumb::trace
