#include "chat/complete.h"

#include <algorithm>
#include <filesystem>

#include "chat/slash.h"

namespace plumb {
namespace {

constexpr size_t kMostFiles = 2000;  // of one folder that are looked at

void add_words(std::string_view words, std::string_view begun, std::vector<std::string>& out) {
  while (!words.empty()) {
    const size_t end = std::min(words.find(' '), words.size());
    if (words.substr(0, end).starts_with(begun)) out.emplace_back(words.substr(0, end));
    words.remove_prefix(std::min(end + 1, words.size()));
  }
}

// Names that begin so; hidden ones only where asked for.
std::vector<std::string> files(std::string_view begun, const char* home) {
  namespace fs = std::filesystem;
  const size_t slash = begun.rfind('/');
  const std::string shown(begun.substr(0, slash == std::string_view::npos ? 0 : slash + 1));
  const std::string_view name = begun.substr(shown.size());
  const std::string folder = shown.empty() ? "." : expand_home(shown, home);
  std::vector<std::string> out;
  std::error_code error;
  size_t seen = 0;
  for (fs::directory_iterator it(folder, error), end; !error && it != end && seen < kMostFiles;
       it.increment(error), ++seen) {
    const std::string found = it->path().filename().string();
    if (!found.starts_with(name) || (name.empty() && found.starts_with('.'))) continue;
    std::error_code ignored;
    out.push_back(shown + found + (it->is_directory(ignored) ? "/" : ""));
  }
  return out;
}

}  // namespace

Completions complete(std::string_view line, std::span<const std::string> settings, const char* home) {
  Completions out;
  const size_t blank = line.find(' ');
  if (line.starts_with('/') && blank == std::string_view::npos) {
    for (const SlashCommand& c : slash_commands()) {
      if (c.name.starts_with(line)) out.candidates.emplace_back(c.name);
    }
  } else if (line.starts_with('/')) {
    const auto commands = slash_commands();
    const auto c = std::find_if(commands.begin(), commands.end(),
                                [&](const SlashCommand& each) { return each.name == line.substr(0, blank); });
    if (c == commands.end()) return out;
    out.begin = std::min(line.find_first_not_of(' ', blank), line.size());
    const std::string_view begun = line.substr(out.begin);
    if (c->file) out.candidates = files(begun, home);
    if (!c->choices.empty()) add_words(c->choices, begun, out.candidates);
    if (c->id == SlashId::set) {
      for (const std::string& name : settings) {
        if (name.starts_with(begun)) out.candidates.push_back(name);
      }
    }
  } else {  // in a message: what looks like a path
    const size_t last = line.find_last_of(" \n");
    out.begin = last == std::string_view::npos ? 0 : last + 1;
    if (line.find('/', out.begin) != std::string_view::npos)
      out.candidates = files(line.substr(out.begin), home);
  }
  std::sort(out.candidates.begin(), out.candidates.end());
  return out;
}

std::string common_prefix(std::span<const std::string> texts) {
  if (texts.empty()) return {};
  std::string_view prefix = texts.front();
  for (const std::string& t : texts) {
    const auto same = std::mismatch(prefix.begin(), prefix.end(), t.begin(), t.end()).first;
    prefix = prefix.substr(0, size_t(same - prefix.begin()));
  }
  return std::string(prefix);
}

std::string expand_home(const std::string& path, const char* home) {
  return home && (path == "~" || path.starts_with("~/")) ? home + path.substr(1) : path;
}

}  // namespace plumb
