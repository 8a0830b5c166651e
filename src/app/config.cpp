#include "app/config.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "app/flags.h"
#include "base/error.h"
#include "base/file.h"

namespace plumb {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

// $XDG_CONFIG_HOME/plumb/config.toml; empty if there is no home.
std::string default_path() {
  const char *config = std::getenv("XDG_CONFIG_HOME"), *home = std::getenv("HOME");
  if (config && *config) return std::string(config) + "/plumb/config.toml";
  return home && *home ? std::string(home) + "/.config/plumb/config.toml" : "";
}

bool is_there(const std::string& path) {
  struct stat s = {};
  return !path.empty() && ::stat(path.c_str(), &s) == 0;
}

std::string expanded(const std::string& value) {
  const char* home = std::getenv("HOME");
  return home && (value == "~" || value.starts_with("~/")) ? home + value.substr(1) : value;
}

bool is_path(const ConfigKey& key) {
  return key.key == "path" || key.key == "models_dir" || key.key == "file" || key.key == "api_key_file";
}

}  // namespace

void Config::add(CLI::App* command) {
  command_ = command;
  flag(command, "--config", asked_, "Configuration file (TOML); default: config.toml in ~/.config/plumb");
}

void Config::read() {
  path_ = asked_.empty() ? default_path() : asked_;
  if (asked_.empty() && !is_there(path_)) return;
  std::string text;
  try {
    text = read_file(path_, kMaxConfigBytes);
  } catch (const Error& e) {
    throw Error(
        {.code = "usage.config", .expected = e.expected(), .found = e.found(), .where = {.file = path_}});
  }
  for (const ConfigEntry& entry : parse_config(text, path_)) apply(entry);
}

void Config::apply(const ConfigEntry& entry) {
  CLI::Option* option = command_->get_option_no_throw(std::string(entry.key->flag));
  if (!option || option->count() > 0) return;  // of another command; or set by who decides
  try {
    for (const std::string& value : entry.values)
      option->add_result(is_path(*entry.key) ? expanded(value) : value);
    option->run_callback();
  } catch (const CLI::ParseError& e) {
    throw Error({.code = "usage.config",
                 .expected = fmt::format("a value that {} takes", entry.key->flag),
                 .found = printable(e.what(), 200),
                 .where = {.file = fmt::format("{}:{}:{}", path_, entry.line, entry.column)}});
  }
  from_file_.push_back(entry.key->flag);
}

std::string Config::origin(std::string_view flag) const {
  const CLI::Option* option = command_->get_option_no_throw(std::string(flag));
  if (!option || option->count() == 0) return "default";
  if (std::find(from_file_.begin(), from_file_.end(), flag) != from_file_.end()) return "file";
  const char* value = std::getenv(option->get_envname().c_str());
  // The command line wins; both together are told apart by the value alone.
  return value && option->results() == std::vector<std::string>{value} ? "environment" : "command line";
}

void Config::save(std::span<const std::pair<const ConfigKey*, std::string>> values) const {
  if (path_.empty()) {
    throw Error({.code = "usage.config",
                 .expected = "a home folder or --config FILE",
                 .found = "neither",
                 .where = {.key = "/config save"}});
  }
  std::string text = is_there(path_) ? read_file(path_, kMaxConfigBytes) : "";
  for (const auto& [key, value] : values) text = edit_config(text, *key, config_value(key->type, value));
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);
  atomic_replace(path_, text);
}

}  // namespace plumb
