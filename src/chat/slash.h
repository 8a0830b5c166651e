// The commands of a chat: lines that begin with "/" and never reach the model. A message that must begin with
// "/" is written "//".
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace plumb {

enum class SlashId {
  help,
  exit,
  clear,
  save,
  load,
  model,
  backend,
  stats,
  system,
  config,
  regen,
  set,
  show,
  read
};

struct SlashCommand {
  std::string_view name;  // with the slash
  SlashId id;
  std::string_view argument;  // as /help shows it; empty: takes none
  int least, most;            // words of the argument; most -1: text as it stands
  bool file;                  // the argument is a file name
  std::string_view choices;   // words that the first may be, separated by spaces; empty: any
  std::string_view help;
};

/// In the order of /help.
std::span<const SlashCommand> slash_commands();

struct Slash {
  SlashId id;
  std::string argument;  // without blanks around it
};

/// The command that a line holds; nothing where it is a message. Throws Error "usage.command" for a name that
/// is none, "usage.argument" for an argument that is missing, too much or not one of the choices.
std::optional<Slash> parse_slash(std::string_view line);

/// What is sent of a line that is no command: "//x" is "/x".
std::string message_of(std::string_view line);

/// First word and the rest, without blanks around them.
std::pair<std::string, std::string> first_word(std::string_view text);

}  // namespace plumb
