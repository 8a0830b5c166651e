// plumb chat: a conversation with a model, in a terminal or through pipes.
#include "app/chat_repl.h"
#include "app/command.h"

namespace plumb {

void add_chat(CLI::App& root) {
  CLI::App* c =
      root.add_subcommand("chat", "Talk with a model; /help lists what can be said besides")->alias("cli");
  auto o = std::make_shared<ChatOptions>();
  o->add(c);
  c->callback([o] {
    o->config.read();
    ChatRepl(*o).run();
  });
}

}  // namespace plumb
