#include "chat/slash.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/terminal_filter.h"

namespace plumb {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

constexpr SlashCommand kCommands[] = {
    {"/help", SlashId::help, "", 0, 0, false, "", "This list"},
    {"/exit", SlashId::exit, "", 0, 0, false, "", "Leave; so does Ctrl-D"},
    {"/quit", SlashId::exit, "", 0, 0, false, "", "Leave"},
    {"/clear", SlashId::clear, "", 0, 0, false, "", "Forget the conversation"},
    {"/regen", SlashId::regen, "", 0, 0, false, "", "Answer the last message again"},
    {"/system", SlashId::system, "[TEXT|-]", 0, -1, false, "", "Show or set the system prompt; -: none"},
    {"/read", SlashId::read, "FILE", 1, -1, true, "", "Put a text file before the next message"},
    {"/save", SlashId::save, "FILE", 1, -1, true, "", "Write the conversation as JSON"},
    {"/load", SlashId::load, "[FILE]", 0, -1, true, "",
     "Go on with a saved conversation; no FILE: the last one"},
    {"/model", SlashId::model, "[PATH]", 0, -1, true, "", "Show the model, or load another"},
    {"/backend", SlashId::backend, "[TYPE]", 0, 1, false, "cpu cuda hybrid", "Show or change where it runs"},
    {"/set", SlashId::set, "[NAME VALUE]", 0, -1, false, "", "Show or change a setting of the answers"},
    {"/show", SlashId::show, "[model|template|sampling|prompt]", 0, 1, false,
     "model template sampling prompt", "Show what the model is given"},
    {"/stats", SlashId::stats, "", 0, 0, false, "", "Speed, tokens, context and memory"},
    {"/config", SlashId::config, "[save]", 0, 1, false, "save",
     "Show all settings, or keep the changed ones"},
};

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

bool is_choice(std::string_view choices, std::string_view word) {
  while (!choices.empty()) {
    const size_t end = std::min(choices.find(' '), choices.size());
    if (choices.substr(0, end) == word) return true;
    choices.remove_prefix(std::min(end + 1, choices.size()));
  }
  return false;
}

int count_words(std::string_view text) {
  int count = 0;
  for (text = trimmed(text); !text.empty(); ++count) {
    const size_t end = std::min(text.find_first_of(kBlanks), text.size());
    text = trimmed(text.substr(end));
  }
  return count;
}

// The command that begins with the most letters of the name: "/sa" is probably meant to be "/save".
std::string likeliest(std::string_view name) {
  std::string_view best;
  size_t most = 1;
  for (const SlashCommand& c : kCommands) {
    const auto end = std::mismatch(name.begin(), name.end(), c.name.begin(), c.name.end()).first;
    if (const size_t same = size_t(end - name.begin()); same > most) most = same, best = c.name;
  }
  return best.empty() ? "/help lists them" : fmt::format("did you mean {}?", best);
}

[[noreturn]] void wrong_argument(const SlashCommand& c, std::string_view found) {
  throw Error({.code = "usage.argument",
               .expected = c.argument.empty() ? fmt::format("{} alone", c.name)
                                              : fmt::format("{} {}", c.name, c.argument),
               .found = found.empty() ? "nothing after it" : terminal_text(found.substr(0, 80))});
}

}  // namespace

std::span<const SlashCommand> slash_commands() { return kCommands; }

std::pair<std::string, std::string> first_word(std::string_view text) {
  text = trimmed(text);
  const size_t end = std::min(text.find_first_of(kBlanks), text.size());
  return {std::string(text.substr(0, end)), std::string(trimmed(text.substr(end)))};
}

std::optional<Slash> parse_slash(std::string_view line) {
  line = trimmed(line);
  if (line.empty() || line.front() != '/' || line.starts_with("//")) return std::nullopt;
  const auto [name, argument] = first_word(line);
  const auto* c = std::find_if(std::begin(kCommands), std::end(kCommands),
                               [&](const SlashCommand& each) { return each.name == name; });
  if (c == std::end(kCommands)) {
    throw Error({.code = "usage.command",
                 .expected = "a command",
                 .found = terminal_text(std::string_view(name).substr(0, 40)),
                 .remedy = likeliest(name) + "; to send it, write //"});
  }
  const int words = count_words(argument);
  if (words < c->least || (c->most >= 0 && words > c->most)) wrong_argument(*c, argument);
  if (words > 0 && !c->choices.empty() && !is_choice(c->choices, argument)) wrong_argument(*c, argument);
  if (c->id == SlashId::set && words == 1) wrong_argument(*c, argument);
  return Slash{c->id, argument};
}

std::string message_of(std::string_view line) {
  const size_t first = line.find_first_not_of(kBlanks);
  std::string out(line);
  if (first != std::string_view::npos && line.substr(first).starts_with("//")) out.erase(first, 1);
  return out;
}

}  // namespace plumb
