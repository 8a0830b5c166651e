#include "trace/prediction_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "trace/digest.h"

namespace plumb::trace {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostBytes = size_t(512) << 20;  // of one file
constexpr uintmax_t kMostOfAll = uintmax_t(1) << 30;
constexpr uint32_t kMagic = 0x32637270;  // of a record

// Before a record's key and body.
struct Head {
  uint32_t magic, key, depth, body;  // key, body: bytes
  uint64_t sum;                      // digest of both
};

// A file's place, size and time of change.
std::string stamp(const std::string& path) {
  struct stat s{};
  ::stat(path.c_str(), &s);
  return fmt::format("{} {} {}.{};", path, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
}

// Everything that predictions depend on but the hypothesis itself.
std::string name_of(const std::string& model, const Evidence& e) {
  std::string key = stamp("/proc/self/exe") + stamp(model);
  for (const ForeignRun& run : e.runs) {
    for (int id : run.tokens) key += fmt::format("{} ", id);
    for (int n : run.calls) key += fmt::format("/{}", n);
    key += fmt::format(";{};", run.prompt);
  }
  for (const Observed& o : e.groups) {
    key += fmt::format("{} {} {} {} {} {} {} {} {}:", o.value, o.run, o.first, o.tokens, o.call, o.whole_call,
                       o.last, o.top, o.shifted);
    for (const Quantity& q : o.what) key += fmt::format("{} {},", int(q.kind), q.index);
    for (int id : o.chosen) key += fmt::format("{} ", id);
  }
  return fmt::format("{:016x}.predictions", digest(key));
}

// As f32, which is what predictions are rounded to.
void put(std::string& out, const std::vector<double>& v) {
  const auto n = uint32_t(v.size());
  out.append(reinterpret_cast<const char*>(&n), sizeof n);
  for (const double x : v) {
    const auto f = float(x);
    out.append(reinterpret_cast<const char*>(&f), sizeof f);
  }
}

bool take(std::string_view& rest, void* to, size_t n) {
  if (n > rest.size()) return false;
  if (n > 0) std::memcpy(to, rest.data(), n);
  rest.remove_prefix(n);
  return true;
}

bool take(std::string_view& rest, std::vector<double>& v) {
  uint32_t n = 0;
  if (!take(rest, &n, sizeof n) || n > rest.size() / sizeof(float)) return false;
  v.resize(n);
  for (double& x : v) {
    float f = 0;
    take(rest, &f, sizeof f);
    x = double(f);
  }
  return true;
}

std::optional<Prediction> parse(std::string_view body, size_t groups) {
  Prediction p(groups);
  for (PredictedGroup& g : p) {
    std::vector<double> head;
    if (!take(body, head) || head.size() != 2 || !take(body, g.x) || !take(body, g.others) ||
        !take(body, g.margins))
      return std::nullopt;
    g.computed = head[0] != 0, g.size = head[1];
  }
  return p;
}

void remove_oldest(const fs::path& folder) {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (entry.path().extension() == ".predictions")
      files.emplace_back(entry.last_write_time(failed), entry.path());
  }
  std::sort(files.rbegin(), files.rend());
  uintmax_t all = 0;
  for (const auto& [time, path] : files) {
    all += fs::file_size(path, failed);
    if (all > kMostOfAll && path != files[0].second) fs::remove(path, failed);
  }
}

}  // namespace

PredictionCache::PredictionCache(const std::string& folder, const std::string& model,
                                 const Evidence& evidence)
    : groups_(evidence.groups.size()) {
  if (folder.empty()) return;
  path_ = folder + "/" + name_of(model, evidence);
  std::error_code failed;
  if (!fs::exists(path_, failed)) return;
  try {
    file_ = MappedFile::open(path_);
    read_all();
  } catch (const Error&) {
    kept_.clear();
  }
}

// Notes where records lie; what they hold is looked at when it is asked for.
void PredictionCache::read_all() {
  const std::string_view all(reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size());
  std::string_view rest = all;
  for (Head head{}; take(rest, &head, sizeof head);) {
    const size_t size = size_t(head.key) + head.body;
    if (head.magic != kMagic || size > rest.size()) return;
    std::string key(rest.substr(0, head.key));
    kept_[std::move(key)] = {int(head.depth), all.substr(good_, sizeof head + size)};
    rest.remove_prefix(size);
    good_ = all.size() - rest.size();
  }
}

std::optional<Prediction> PredictionCache::find(const std::string& key, int depth) const {
  const auto at = kept_.find(key);
  if (at == kept_.end() || at->second.depth < depth) return std::nullopt;
  std::string_view record = at->second.record;
  Head head{};
  if (!take(record, &head, sizeof head) || head.sum != digest(record)) return std::nullopt;
  return parse(record.substr(head.key), groups_);
}

void PredictionCache::keep(const std::string& key, int depth, const Prediction& prediction) {
  std::string record(sizeof(Head), '\0');
  record += key;
  for (const PredictedGroup& g : prediction) {
    put(record, {g.computed ? 1. : 0., g.size});
    put(record, g.x), put(record, g.others), put(record, g.margins);
  }
  if (good_ + fresh_bytes_ + record.size() > kMostBytes) return;
  const std::string_view rest = std::string_view(record).substr(sizeof(Head));
  const Head head{kMagic, uint32_t(key.size()), uint32_t(depth), uint32_t(rest.size() - key.size()),
                  digest(rest)};
  std::memcpy(record.data(), &head, sizeof head);
  fresh_bytes_ += record.size();
  kept_[key] = {depth, fresh_.emplace_back(std::move(record))};
}

void PredictionCache::save() {
  if (path_.empty() || fresh_.empty()) return;
  std::error_code failed;
  const fs::path folder = fs::path(path_).parent_path();
  fs::create_directories(folder, failed);
  try {
    if (good_ < file_.bytes().size())  // its end is no record
      atomic_replace(path_, std::string_view(reinterpret_cast<const char*>(file_.bytes().data()), good_));
    const int fd = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return;
    std::string all;
    for (const std::string& record : fresh_) all += record;
    fresh_.clear();
    try {
      write_all(fd, {reinterpret_cast<const uint8_t*>(all.data()), all.size()});
    } catch (const Error&) {  // a cut record ends the file when it is read
    }
    ::close(fd);
    remove_oldest(folder);
  } catch (const Error&) {  // they will be computed again
  }
}

}  // namespace plumb::trace
