#include "trace/prediction_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "trace/digest.h"

namespace plumb::trace {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostBytes = size_t(256) << 20;  // of one file
constexpr size_t kMostFiles = 24;
constexpr uint64_t kMagic = 0x31636570626d6c70;

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
    key += fmt::format("{} {} {} {} {} {} {} {}:", o.value, o.run, o.first, o.tokens, o.call, o.whole_call,
                       o.last, o.top);
    for (const Quantity& q : o.what) key += fmt::format("{} {},", int(q.kind), q.index);
    for (int id : o.chosen) key += fmt::format("{} ", id);
  }
  return fmt::format("{:016x}.predictions", digest(key));
}

void put(std::string& out, const std::vector<double>& v) {
  const uint64_t n = v.size();
  out.append(reinterpret_cast<const char*>(&n), sizeof n);
  out.append(reinterpret_cast<const char*>(v.data()), n * sizeof(double));
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  bool number(uint64_t& n) { return take(&n, sizeof n); }
  bool text(std::string& s) {
    uint64_t n = 0;
    if (!number(n) || n > rest_.size()) return false;
    s.resize(n);
    return take(s.data(), n);
  }
  bool list(std::vector<double>& v) {
    uint64_t n = 0;
    if (!number(n) || n > rest_.size() / sizeof(double)) return false;
    v.resize(n);
    return take(v.data(), n * sizeof(double));
  }
  bool ended() const { return rest_.empty(); }

 private:
  bool take(void* to, size_t n) {
    if (n > rest_.size()) return false;
    if (n > 0) std::memcpy(to, rest_.data(), n);
    rest_.remove_prefix(n);
    return true;
  }
  std::string_view rest_;
};

bool read_all(std::string_view bytes, size_t groups, std::map<std::string, Prediction>& out) {
  if (bytes.size() < 16) return false;
  uint64_t magic = 0, sum = 0;
  std::memcpy(&magic, bytes.data(), 8), std::memcpy(&sum, bytes.data() + 8, 8);
  bytes.remove_prefix(16);
  if (magic != kMagic || sum != digest(bytes)) return false;
  Reader in(bytes);
  while (!in.ended()) {
    std::string key;
    Prediction p(groups);
    if (!in.text(key)) return false;
    for (PredictedGroup& g : p) {
      std::vector<double> head;
      if (!in.list(head) || head.size() != 2 || !in.list(g.x) || !in.list(g.others) || !in.list(g.margins))
        return false;
      g.computed = head[0] != 0, g.size = head[1];
    }
    out[key] = std::move(p);
  }
  return true;
}

void remove_oldest(const fs::path& folder) {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (entry.path().extension() == ".predictions")
      files.emplace_back(entry.last_write_time(failed), entry.path());
  }
  std::sort(files.begin(), files.end());
  for (size_t i = 0; i + kMostFiles < files.size(); ++i) fs::remove(files[i].second, failed);
}

}  // namespace

PredictionCache::PredictionCache(const std::string& folder, const std::string& model,
                                 const Evidence& evidence) {
  if (folder.empty()) return;
  path_ = folder + "/" + name_of(model, evidence);
  std::error_code failed;
  if (!fs::exists(path_, failed)) return;
  try {
    if (!read_all(read_file(path_, int64_t(2 * kMostBytes)), evidence.groups.size(), kept_)) kept_.clear();
  } catch (const Error&) {
    kept_.clear();
  }
}

const Prediction* PredictionCache::find(const std::string& key) const {
  const auto at = kept_.find(key);
  return at == kept_.end() ? nullptr : &at->second;
}

void PredictionCache::keep(const std::string& key, const Prediction& prediction) {
  size_t bytes = key.size() + 64;
  for (const PredictedGroup& g : prediction)
    bytes += 64 + 8 * (g.x.size() + g.others.size() + g.margins.size());
  if (bytes_ + bytes > kMostBytes) return;
  bytes_ += bytes, changed_ = true;
  kept_[key] = prediction;
}

void PredictionCache::save() const {
  if (path_.empty() || !changed_) return;
  std::string body;
  for (const auto& [key, prediction] : kept_) {
    const uint64_t n = key.size();
    body.append(reinterpret_cast<const char*>(&n), sizeof n);
    body += key;
    for (const PredictedGroup& g : prediction) {
      put(body, {g.computed ? 1. : 0., g.size});
      put(body, g.x), put(body, g.others), put(body, g.margins);
    }
  }
  std::string file(16, '\0');
  const uint64_t sum = digest(body);
  std::memcpy(file.data(), &kMagic, 8), std::memcpy(file.data() + 8, &sum, 8);
  std::error_code failed;
  fs::create_directories(fs::path(path_).parent_path(), failed);
  try {
    atomic_replace(path_, file + body);
    remove_oldest(fs::path(path_).parent_path());
  } catch (const Error&) {  // they will be computed again
  }
}

}  // namespace plumb::trace
