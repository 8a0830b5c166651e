// The configuration file: TOML whose keys are defaults for flags. Order: default, file, environment, command
// line. $XDG_CONFIG_HOME/plumb/config.toml, or --config FILE.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace CLI {
class App;
}

namespace plumb {

enum class ConfigType { text, integer, real, boolean, texts };

/// A key of the file and the flag that it is a default of; a command that lacks the flag passes it over.
/// Flags of type boolean are named "--x" and are given as true or false.
struct ConfigKey {
  std::string_view section, key, flag;
  ConfigType type;
};

std::span<const ConfigKey> config_keys();

struct ConfigEntry {
  const ConfigKey* key;
  std::vector<std::string> values;  // as the flag reads them; several of a list
  uint32_t line = 0, column = 0;
};

/// The entries of a file in its order. Throws Error "usage.config" with line and column for what is no TOML,
/// for a key that is not known (naming the nearest) and for a value of another type.
std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& name);

/// The text with one key set, everything else as it stands: comments, order, blanks. `value` is a TOML value.
std::string edit_config(const std::string& text, const ConfigKey& key, const std::string& value);

/// "text" as a TOML string; a number or true as it is.
std::string config_value(ConfigType type, const std::string& value);

class Config {
 public:
  /// Adds --config; call read() in the callback, before any flag's value is used.
  void add(CLI::App* command);

  /// Reads the file, which may be absent unless it was asked for, and sets each flag that neither the
  /// environment nor the command line has set. Throws Error "usage.config".
  void read();

  const std::string& path() const { return path_; }
  /// Where the value of a flag comes from: "default", "file", "environment" or "command line".
  std::string origin(std::string_view flag) const;

  /// Writes these values into the file, atomically; makes it, and its folder, if need be.
  void save(std::span<const std::pair<const ConfigKey*, std::string>> values) const;

 private:
  void apply(const ConfigEntry& entry);

  CLI::App* command_ = nullptr;
  std::string asked_, path_;
  std::vector<std::string_view> from_file_;  // flags
};

}  // namespace plumb
