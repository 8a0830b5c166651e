// The commands of a chat that show or change settings: /set, /show, /stats, /config.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>

#include "app/chat_repl.h"
#include "app/nearest.h"
#include "app/terminal_text.h"
#include "base/error.h"
#include "engine/settings.h"

namespace plumb {
namespace {

[[noreturn]] void wrong_value(std::string_view name, std::string expected, const std::string& found) {
  throw Error({.code = "usage.value",
               .expected = std::move(expected),
               .found = printable(found),
               .where = {.key = std::string(name)}});
}

// By its key in the configuration, or by a name of its flag: temperature, temp.
const ConfigKey& key_to_set(const std::string& name, const CLI::App& command) {
  std::string flag = "--" + name;
  std::replace(flag.begin(), flag.end(), '_', '-');
  std::vector<std::string> names;
  for (const ConfigKey& k : config_keys()) {
    if (k.section != "generation" && k.section != "interface") continue;
    if (k.key == name || command.get_option(std::string(k.flag))->check_name(flag)) return k;
    names.emplace_back(k.key);
  }
  throw Error({.code = "usage.setting",
               .expected = "the name of a setting",
               .found = printable(name),
               .remedy = fmt::format("did you mean {}?", nearest(name, names, 1).front())});
}

// As the flag of that key takes it, within the bounds that a request has.
std::string checked_value(const ConfigKey& k, const std::string& value, const ChatOptions& o) {
  if (k.type == ConfigType::boolean) {
    if (value == "on" || value == "true") return "true";
    if (value == "off" || value == "false") return "false";
    wrong_value(k.key, "on or off", value);
  }
  if (k.type == ConfigType::integer || k.type == ConfigType::real) {
    double number = 0;
    const char* end = value.data() + value.size();
    const auto [rest, error] = std::from_chars(value.data(), end, number);
    if (error != std::errc() || rest != end) wrong_value(k.key, "a number", value);
    GenerateOptions scratch;
    const Setting* s = find_setting(k.key);
    if (s && !(k.key == "seed" && number == -1)) set_setting(scratch, *s, number);
  }
  if (k.key == "samplers") {
    SamplerFlags flags = o.sampler;
    flags.samplers = value;
    flags.sampler();
  }
  return value;
}

std::string value_of(const CLI::Option& option) {
  if (option.count() == 0) return option.get_default_str();
  return fmt::format("{}", fmt::join(option.results(), ", "));
}

// "VmRSS" or "VmHWM" of this process, in bytes; 0 where the system does not say.
int64_t process_memory(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(name + ":")) continue;
    int64_t kib = 0;
    const size_t digit = line.find_first_of("0123456789");
    if (digit != std::string::npos) std::from_chars(line.data() + digit, line.data() + line.size(), kib);
    return kib * 1024;
  }
  return 0;
}

}  // namespace

void ChatRepl::set(const std::string& argument) {
  if (argument.empty()) {
    show_settings(true);
    return;
  }
  const auto [name, given] = first_word(argument);
  const ConfigKey& k = key_to_set(name, *o_.command);
  const std::string value = checked_value(k, given, o_);
  CLI::Option* option = o_.command->get_option(std::string(k.flag));
  const std::vector<std::string> old = option->results();
  option->clear();
  try {
    option->add_result(value);
    option->run_callback();
  } catch (const CLI::ParseError& e) {
    option->clear();
    for (const std::string& each : old) option->add_result(each);
    wrong_value(k.key, "a value that " + std::string(k.flag) + " takes", e.what());
  }
  changed_[&k] = value;
  screen_.note(fmt::format("{} = {}", k.key, terminal_text(value)));
}

void ChatRepl::show_settings(bool only_generation) {
  std::string_view section;
  if (!only_generation) {
    screen_.note(o_.config.path().empty() ? "# no configuration file: there is no home folder"
                                          : "# " + terminal_text(o_.config.path()));
  }
  for (const ConfigKey& k : config_keys()) {
    const CLI::Option* option = o_.command->get_option_no_throw(std::string(k.flag));
    if (!option || (only_generation && k.section != "generation")) continue;
    if (section != k.section) screen_.note(fmt::format("[{}]", section = k.section));
    const auto changed = changed_.find(&k);
    const std::string value = changed != changed_.end() ? changed->second : value_of(*option);
    const std::string line = fmt::format("{} = {}", k.key, config_value(k.type, value));
    const std::string origin = changed != changed_.end() ? "this session" : o_.config.origin(k.flag);
    screen_.note(origin == "default" ? terminal_text(line)
                                     : fmt::format("{}  # {}", terminal_text(line), origin));
  }
  if (!only_generation && !log_->path().empty()) screen_.note("# journal: " + terminal_text(log_->path()));
}

void ChatRepl::save_config() {
  const std::vector<std::pair<const ConfigKey*, std::string>> values(changed_.begin(), changed_.end());
  if (values.empty()) {
    screen_.note("Nothing was changed in this session.");
    return;
  }
  o_.config.save(values);
  screen_.note(fmt::format("{} settings are in {}.", values.size(), terminal_text(o_.config.path())));
}

void ChatRepl::show(const std::string& what) {
  const Model& model = session_->model();
  if (what == "template") {
    screen_.note(terminal_text(session_->templates().source()));
  } else if (what == "sampling") {
    show_settings(true);
  } else if (what == "prompt") {
    const std::string text = session_->prompt(history_);
    screen_.note(terminal_text(text));
    screen_.dim_note(fmt::format("[{} tokens]", session_->templates().encode(text).size()));
  } else {
    screen_.note(
        fmt::format("{}\narchitecture {}, {}, vocabulary {}, trained with {} tokens of context\n"
                    "fingerprint {}, backend {}, {} threads",
                    terminal_text(model.file().path()),
                    terminal_text(model.file().text("general.architecture").value_or("")),
                    readable_bytes(model.file().file_bytes()), model.n_vocab(), model.program().n_ctx_train,
                    fingerprint(model.file()), o_.model.backend, model.pool().threads()));
  }
}

void ChatRepl::show_stats() {
  if (last_) {
    const Generated& g = last_->generated;
    const int64_t computed = last_->prompt_tokens - last_->cached_tokens;
    const auto rate = [](double count, double seconds) { return seconds > 0 ? count / seconds : 0; };
    screen_.note(fmt::format("first token   {:.3f} s", g.prompt_seconds));
    screen_.note(fmt::format("prompt        {} tokens, {} cached, {:.1f}/s", last_->prompt_tokens,
                             last_->cached_tokens, rate(double(computed), g.prompt_seconds)));
    screen_.note(fmt::format("answer        {} tokens, {:.1f}/s", g.ids.size(),
                             rate(double(g.ids.size()), g.seconds)));
    screen_.note(fmt::format("ended by      {}", name(g.stop)));
    screen_.note(fmt::format("seed          {}", last_options_.sampler.seed));
  } else {
    screen_.note("no answer yet");
  }
  screen_.note(fmt::format("context       {} of {} tokens", session_->context_used(), session_->n_ctx()));
  if (last_ && last_->left_out > 0) screen_.note(fmt::format("left out      {} messages", last_->left_out));
  screen_.note(fmt::format("memory        {}, at most {}", readable_bytes(process_memory("VmRSS")),
                           readable_bytes(process_memory("VmHWM"))));
}

}  // namespace plumb
