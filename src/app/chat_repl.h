// The conversation at a terminal, or with a program that writes lines: read a message or a command, answer,
// record, again.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "app/chat_options.h"
#include "app/chat_screen.h"
#include "app/line_editor.h"
#include "chat/input.h"
#include "chat/log.h"
#include "chat/session.h"
#include "chat/slash.h"

namespace plumb {

class ChatRepl {
 public:
  /// Loads the model and the conversation that was asked for.
  explicit ChatRepl(ChatOptions& options);
  ~ChatRepl();

  /// Until the user leaves. Throws where nobody can be told: the output is gone, or the one turn asked for
  /// failed.
  void run();

 private:
  enum class Read { message, end, nothing };

  // chat_repl.cpp
  void set_up();
  std::unique_ptr<ChatSession> load(const std::string& path);
  void greet();
  Read read(InputLines& input);
  LineEditor::Result read_line(bool first, std::string& line);
  LineEditor::Result read_plain_line(std::string& line);
  bool interrupted_at_prompt(bool nothing_typed);
  bool take(const InputLines& input);
  void failed(const Error& e);

  // chat_answer.cpp
  void send(const std::string& text);
  void answer(size_t replaced);
  ChatMessage recorded(const Reply& reply, const GenerateOptions& used) const;
  void tell(const Reply& reply);
  void show_timings();

  // chat_commands.cpp; false: leave
  bool command(const Slash& slash);
  void help();
  void clear();
  void regenerate();
  void set_system(const std::string& text);
  void read_text(const std::string& path);
  void save(const std::string& path);
  void load_conversation(const std::string& path);
  void take_over(History history, const std::string& from);
  void resume();
  void change_model(const std::string& path);
  void change_backend(const std::string& type);

  // chat_settings.cpp
  void set(const std::string& argument);
  void show(const std::string& what);
  void show_settings(bool only_generation);
  void show_stats();
  void save_config();

  ChatOptions& o_;
  ChatScreen screen_;
  std::unique_ptr<ChatSession> session_;
  std::unique_ptr<LineEditor> editor_;
  std::unique_ptr<ConversationLog> log_;
  History history_;
  std::string read_before_;                          // text of /read, for the next message
  std::map<const ConfigKey*, std::string> changed_;  // in this run, by /set and its kin
  std::optional<Reply> last_;                        // the last answer, and how it was drawn
  GenerateOptions last_options_;
  int again_ = 0;            // how often the last message was answered before
  int interrupts_ = 0;       // in a row at the prompt
  std::string line_buffer_;  // of an input that is no terminal
  int status_ = 0;           // of the last failure
};

/// "$XDG_STATE_HOME/plumb"; empty if there is no home.
std::string state_folder();

}  // namespace plumb
