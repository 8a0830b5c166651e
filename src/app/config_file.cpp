// The one user of toml++: reads and edits the text of a configuration.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>

#include "app/config.h"
#include "app/nearest.h"
#include "base/error.h"
#include "base/terminal_filter.h"
#include "base/utf8.h"

namespace plumb {
namespace {

using enum ConfigType;

constexpr ConfigKey kKeys[] = {
    {"model", "path", "--model", text},
    {"model", "models_dir", "--models-dir", text},
    {"backend", "default", "--backend", text},
    {"backend", "threads", "--threads", integer},
    {"backend", "gpu_layers", "--n-gpu-layers", integer},
    {"backend", "device", "--device", integer},
    {"backend", "ctx_size", "--ctx-size", integer},
    {"backend", "ubatch_size", "--ubatch-size", integer},
    {"backend", "cache_type_k", "--cache-type-k", text},
    {"backend", "cache_type_v", "--cache-type-v", text},
    {"backend", "arith", "--arith", text},
    {"backend", "spec", "--spec", text},
    {"generation", "max_tokens", "--max-tokens", integer},
    {"generation", "temperature", "--temperature", real},
    {"generation", "top_k", "--top-k", integer},
    {"generation", "top_p", "--top-p", real},
    {"generation", "min_p", "--min-p", real},
    {"generation", "repeat_penalty", "--repeat-penalty", real},
    {"generation", "repeat_last_n", "--repeat-last-n", integer},
    {"generation", "presence_penalty", "--presence-penalty", real},
    {"generation", "frequency_penalty", "--frequency-penalty", real},
    {"generation", "typical_p", "--typical", real},
    {"generation", "top_n_sigma", "--top-nsigma", real},
    {"generation", "xtc_probability", "--xtc-probability", real},
    {"generation", "xtc_threshold", "--xtc-threshold", real},
    {"generation", "dry_multiplier", "--dry-multiplier", real},
    {"generation", "dry_base", "--dry-base", real},
    {"generation", "dry_allowed_length", "--dry-allowed-length", integer},
    {"generation", "dry_penalty_last_n", "--dry-penalty-last-n", integer},
    {"generation", "dynatemp_range", "--dynatemp-range", real},
    {"generation", "dynatemp_exponent", "--dynatemp-exp", real},
    {"generation", "mirostat", "--mirostat", integer},
    {"generation", "mirostat_tau", "--mirostat-ent", real},
    {"generation", "mirostat_eta", "--mirostat-lr", real},
    {"generation", "samplers", "--samplers", text},
    {"generation", "seed", "--seed", integer},
    {"interface", "prompt_user", "--prompt-user", text},
    {"interface", "prompt_assistant", "--prompt-assistant", text},
    {"interface", "show_progress", "--show-progress", boolean},
    {"interface", "color", "--color", text},
    {"interface", "multiline", "--multiline-input", boolean},
    {"interface", "timings", "--show-timings", boolean},
    {"history", "auto_save", "--auto-save", boolean},
    {"history", "file", "--history-file", text},
    {"history", "max_entries", "--history-max-entries", integer},
    {"server", "host", "--host", text},
    {"server", "port", "--port", integer},
    {"server", "parallel", "--parallel", integer},
    {"server", "api_key_file", "--api-key-file", text},
    {"server", "cors_origins", "--cors-origins", texts},
    {"server", "allow_host", "--allow-host", texts},
};

[[noreturn]] void refuse(const std::string& name, const toml::source_position& at, std::string expected,
                         std::string found) {
  throw Error({.code = "usage.config",
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.file = fmt::format("{}:{}:{}", name, at.line, at.column)}});
}

toml::table parse(std::string_view text, const std::string& name) {
  try {
    return toml::parse(text, std::string_view(name));
  } catch (const toml::parse_error& e) {
    refuse(name, e.source().begin, "TOML", terminal_text(e.description()));
  }
}

const char* type_name(ConfigType type) {
  switch (type) {
    case ConfigType::text:
      return "a text in quotes";
    case integer:
      return "a whole number";
    case real:
      return "a number";
    case boolean:
      return "true or false";
    case texts:
      break;
  }
  return "a list of texts";
}

// As a flag reads it; false where the type differs.
bool value_of(const toml::node& node, ConfigType type, std::vector<std::string>& out) {
  if (type == texts) {
    const toml::array* all = node.as_array();
    return all && std::all_of(all->begin(), all->end(),
                              [&](const toml::node& each) { return value_of(each, ConfigType::text, out); });
  }
  if (type == ConfigType::text && node.is_string()) {
    out.push_back(node.ref<std::string>());
  } else if (type == boolean && node.is_boolean()) {
    out.push_back(node.ref<bool>() ? "true" : "false");
  } else if ((type == integer || type == real) && node.is_integer()) {
    out.push_back(std::to_string(node.ref<int64_t>()));
  } else if (type == real && node.is_floating_point()) {
    out.push_back(fmt::format("{}", node.ref<double>()));
  } else {
    return false;
  }
  return true;
}

const ConfigKey* find_key(std::string_view section, std::string_view key) {
  const auto* found = std::find_if(std::begin(kKeys), std::end(kKeys),
                                   [&](const ConfigKey& k) { return k.section == section && k.key == key; });
  return found == std::end(kKeys) ? nullptr : found;
}

// An unknown name, and the one of its kind that is most like it.
[[noreturn]] void unknown(const std::string& name, const toml::key& key, std::string_view section) {
  std::vector<std::string> names;
  for (const ConfigKey& k : kKeys) {
    if (section.empty()) {
      names.push_back(fmt::format("[{}]", k.section));
    } else if (k.section == section) {
      names.emplace_back(k.key);
    }
  }
  const std::string what = section.empty() ? fmt::format("[{}]", key.str()) : std::string(key.str());
  const std::vector<std::string> near = nearest(what, names, 1);
  refuse(name, key.source().begin,
         section.empty() ? "a section that is known" : fmt::format("a key that [{}] has", section),
         fmt::format("{}; did you mean {}?", terminal_text(what), near.front()));
}

// Byte of a position, whose columns count characters from 1.
size_t offset_of(std::string_view text, const toml::source_position& at) {
  size_t offset = 0;
  for (uint32_t line = 1; line < at.line; ++line)
    offset = std::min(text.find('\n', offset), text.size() - 1) + 1;
  for (uint32_t column = 1; column < at.column && offset < text.size() && text[offset] != '\n'; ++column)
    offset += size_t(utf8_length(uint8_t(text[offset])));
  return std::min(offset, text.size());
}

std::string with_newline(std::string text) {
  if (!text.empty() && text.back() != '\n') text += '\n';
  return text;
}

// Without a look at whether the result says what it should.
std::string edited(const std::string& text, const toml::table& root, const ConfigKey& key,
                   const std::string& value) {
  const toml::table* section = root[key.section].as_table();
  if (!section)
    return with_newline(text) +
           fmt::format("{}[{}]\n{} = {}\n", text.empty() ? "" : "\n", key.section, key.key, value);
  if (const toml::node* old = section->get(key.key)) {
    const size_t from = offset_of(text, old->source().begin), to = offset_of(text, old->source().end);
    return text.substr(0, from) + value + text.substr(std::max(from, to));
  }
  const std::string whole = with_newline(text);  // below the section's head
  const size_t at = whole.find('\n', offset_of(whole, section->source().begin)) + 1;
  return whole.substr(0, at) + fmt::format("{} = {}\n", key.key, value) + whole.substr(at);
}

}  // namespace

std::span<const ConfigKey> config_keys() { return kKeys; }

std::vector<ConfigEntry> parse_config(std::string_view source, const std::string& name) {
  std::vector<ConfigEntry> out;
  for (const auto& [section, members] : parse(source, name)) {
    const bool known = std::any_of(std::begin(kKeys), std::end(kKeys),
                                   [&, &s = section](const ConfigKey& k) { return k.section == s.str(); });
    if (!known) unknown(name, section, "");
    const toml::table* table = members.as_table();
    if (!table) refuse(name, members.source().begin, fmt::format("a section [{}]", section.str()), "a value");
    for (const auto& [key, node] : *table) {
      const ConfigKey* k = find_key(section.str(), key.str());
      if (!k) unknown(name, key, section.str());
      const toml::source_position at = node.source().begin;
      ConfigEntry entry{k, {}, at.line, at.column};
      if (!value_of(node, k->type, entry.values)) {
        refuse(name, at, fmt::format("{} for {}", type_name(k->type), k->key),
               fmt::format("{}", toml::impl::node_type_friendly_names[size_t(node.type())]));
      }
      out.push_back(std::move(entry));
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const ConfigEntry& a, const ConfigEntry& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  return out;
}

std::string config_value(ConfigType type, const std::string& value) {
  if (type != ConfigType::text) return value;
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (uint8_t(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\u{:04x}", uint8_t(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string edit_config(const std::string& text, const ConfigKey& key, const std::string& value) {
  const std::string out = edited(text, parse(text, "configuration"), key, value);
  // What was asked for must be what the new text says, and nothing else may have changed.
  std::vector<ConfigEntry> before = parse_config(text, "configuration"), after;
  try {
    after = parse_config(out, "configuration");
  } catch (const Error&) {
  }
  const auto is_key = [&](const ConfigEntry& e) { return e.key == &key; };
  const std::vector<ConfigEntry> wanted =
      parse_config(fmt::format("[{}]\n{} = {}\n", key.section, key.key, value), "the new value");
  std::erase_if(before, is_key);
  const auto set = std::find_if(after.begin(), after.end(), is_key);
  const bool right = set != after.end() && set->values == wanted.at(0).values;
  std::erase_if(after, is_key);
  const auto same = [](const ConfigEntry& a, const ConfigEntry& b) {
    return a.key == b.key && a.values == b.values;
  };
  if (!right || !std::equal(before.begin(), before.end(), after.begin(), after.end(), same)) {
    throw Error({.code = "usage.config",
                 .expected = fmt::format("a section [{}] with one key a line", key.section),
                 .found = "another way of writing it",
                 .remedy = fmt::format("set {} = {} by hand", key.key, value)});
  }
  return out;
}

}  // namespace plumb
