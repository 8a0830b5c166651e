#include "cpu/packed_folder.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <tuple>
#include <vector>

#include "cpu/packed_file.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

struct Kept {
  std::string path;
  int64_t bytes;
  timespec used;
  bool earlier(const Kept& other) const {
    return std::tie(used.tv_sec, used.tv_nsec) < std::tie(other.used.tv_sec, other.used.tv_nsec);
  }
};

std::string folder_of(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

int64_t free_in(const std::string& folder) {
  struct statvfs disk = {};
  if (::statvfs(folder.c_str(), &disk) != 0) return 0;
  return int64_t(disk.f_bavail) * int64_t(disk.f_frsize);
}

// Another process may remove it first, or map it still: both are fine.
void remove(const std::string& path) { ::unlink(path.c_str()); }

// `NAME.r16.XXXXXX`, whose writer was killed: packing takes minutes at most.
bool is_abandoned(const fs::path& path, const struct stat& s) {
  constexpr time_t kDay = 24 * 60 * 60;
  constexpr size_t kRandom = sizeof ".XXXXXX" - 1;
  return path.extension().string().size() == kRandom && path.stem().extension() == ".r16" &&
         ::time(nullptr) - s.st_mtim.tv_sec > kDay;
}

// Removes what nobody needs; returns the rest, without `path`.
std::vector<Kept> swept(const std::string& path) {
  std::vector<Kept> kept;
  std::error_code error;
  fs::directory_iterator at(folder_of(path), error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().string();
    struct stat s = {};
    if (::lstat(name.c_str(), &s) != 0 || !S_ISREG(s.st_mode)) continue;
    if (is_abandoned(at->path(), s)) remove(name);
    if (at->path().extension() != ".r16" || name == path) continue;
    const std::optional<std::string> source = PackedFile::source_of(name);
    if (!source) continue;
    std::error_code gone;
    if (!fs::exists(*source, gone) && !gone)
      remove(name);
    else
      kept.push_back({name, int64_t(s.st_blocks) * 512, s.st_atim});
  }
  return kept;
}

}  // namespace

bool make_packed_room(const std::string& path, int64_t bytes, std::optional<int64_t> free) {
  std::vector<Kept> kept = swept(path);
  std::sort(kept.begin(), kept.end(), [](const Kept& a, const Kept& b) { return a.earlier(b); });
  int64_t held = 0;
  for (const Kept& k : kept) held += k.bytes;
  const int64_t limit = ((free ? *free : free_in(folder_of(path))) + held) / 2;
  if (bytes > limit) return false;
  for (const Kept& k : kept) {
    if (held + bytes <= limit) break;
    remove(k.path);
    held -= k.bytes;
  }
  return true;
}

}  // namespace plumb
