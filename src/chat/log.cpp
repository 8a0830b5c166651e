#include "chat/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEnding = ".journal";

void make_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::create_directories(folder, error)) fs::permissions(folder, fs::perms::owner_all, error);
}

// "20261124T014012Z-4711": names sort by time.
std::string name_of(const History& history) {
  std::string name = format_time(std::max<int64_t>(0, history.created));
  std::erase_if(name, [](char c) { return c == '-' || c == ':'; });
  return fmt::format("{}-{}", name, ::getpid());
}

}  // namespace

ConversationLog::ConversationLog(std::string folder, std::string file)
    : folder_(std::move(folder)), file_(std::move(file)) {}

void ConversationLog::start(const History& history) {
  if (file_.empty()) journal_.reset();
  pending_ = {record_start(history)};
  if (!history.messages.empty()) add({}, true);
}

void ConversationLog::open() {
  if (journal_) return;
  if (!file_.empty()) {
    make_folder(fs::absolute(file_).parent_path());
    journal_.emplace(file_);
    return;
  }
  make_folder(folder_);
  const History begun = replay(std::span(pending_).first(1), "the running conversation");
  const std::string name = (fs::path(folder_) / name_of(begun)).string();
  for (int n = 1;; ++n) {  // two of one second
    const std::string path = name + (n == 1 ? "" : fmt::format("-{}", n)) + kEnding;
    std::error_code ignored;
    if (fs::exists(path, ignored)) continue;
    journal_.emplace(path);
    return;
  }
}

void ConversationLog::add(std::string record, bool write_now) {
  if (folder_.empty() && file_.empty()) return;
  if (!record.empty()) pending_.push_back(std::move(record));
  if (!write_now && !journal_) return;  // a conversation without a message is not worth a file
  open();
  size_t written = 0;
  try {
    for (; written < pending_.size(); ++written) journal_->append(pending_[written]);
  } catch (...) {
    pending_.erase(pending_.begin(), pending_.begin() + int64_t(written));
    throw;
  }
  pending_.clear();
}

std::optional<ConversationLog::Found> ConversationLog::last() const {
  std::vector<std::string> paths;
  std::error_code error;
  if (!file_.empty()) {
    if (fs::exists(file_, error)) paths.push_back(file_);
  } else if (!folder_.empty()) {
    for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
      if (it->path().extension() == kEnding && it->path().string() != path())
        paths.push_back(it->path().string());
    }
  }
  std::sort(paths.rbegin(), paths.rend());
  for (const std::string& each : paths) {
    try {
      Found found{each, {}, 0};
      if (each == path()) {
        found.history = replay(read_journal(each).records, each);
      } else {
        const Journal journal(each);  // cuts off what is torn; throws where another program writes
        found.history = replay(journal.records(), each);
        found.torn_bytes = journal.torn_bytes();
      }
      if (!found.history.messages.empty()) return found;
    } catch (const Error&) {  // of another program, or none that can be read
    }
  }
  return std::nullopt;
}

void ConversationLog::resume(const Found& found) {
  if (folder_.empty() && file_.empty()) return;
  pending_.clear();
  if (path() != found.path) journal_.reset();
  if (!journal_) journal_.emplace(found.path);
}

}  // namespace plumb
