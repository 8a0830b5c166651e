// `plumb apply-template`: the prompt that a model's chat template makes of messages, exactly as rendered.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>

#include "app/command.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "gguf/gguf.h"
#include "text/chat_template.h"

namespace plumb {
namespace {

struct ApplyTemplateFlags {
  std::string model, source_file, messages, tools, variables;
  bool add_generation_prompt = false;
  int64_t now = -1;
};

Json json_file(const std::string& path) {
  return path.empty() ? Json() : parse_json(read_file(path, kMaxJsonBytes), path);
}

// The text of a special token of the model, as transformers passes it to a template.
std::string special_token(const Gguf& file, const std::string& key) {
  const auto id = file.integer(key, 0, kMaxVocabulary);
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  return id && tokens && size_t(*id) < tokens->size() ? std::string((*tokens)[size_t(*id)]) : "";
}

void apply_template(const ApplyTemplateFlags& flags) {
  ChatInput input{.messages = json_file(flags.messages), .tools = json_file(flags.tools), .variables = {}};
  if (!input.messages.array()) {
    throw Error({.code = "usage.messages",
                 .expected = "an array of messages",
                 .found = "another value",
                 .where = {.file = flags.messages, .key = "--messages"}});
  }
  if (!flags.variables.empty()) input.variables = parse_json(flags.variables, "--chat-template-kwargs");
  if (!input.variables.is_null() && !input.variables.object()) {
    throw Error({.code = "usage.kwargs",
                 .expected = "a JSON object",
                 .found = "another value",
                 .where = {.key = "--chat-template-kwargs"}});
  }
  input.add_generation_prompt = flags.add_generation_prompt;
  input.now = flags.now < 0 ? std::time(nullptr) : std::time_t(flags.now);
  std::string source;
  if (!flags.model.empty()) {
    const Gguf file = Gguf::open(flags.model);
    input.bos_token = special_token(file, "tokenizer.ggml.bos_token_id");
    input.eos_token = special_token(file, "tokenizer.ggml.eos_token_id");
    const auto own = file.text("tokenizer.chat_template");
    if (!own && flags.source_file.empty())
      file.missing("tokenizer.chat_template", "the model's chat template");
    if (own) source = *own;
  }
  if (!flags.source_file.empty()) source = read_file(flags.source_file, kMaxTemplateBytes);
  const std::string text = ChatTemplate::parse(source).render(input);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Error({.code = "file.write",
                 .expected = "to write to standard output",
                 .found = "that it is closed or full"});
  }
}

}  // namespace

void add_apply_template(CLI::App& root) {
  auto flags = std::make_shared<ApplyTemplateFlags>();
  CLI::App* command = root.add_subcommand("apply-template", "Turn chat messages into the prompt of a model");
  CLI::Option* model = command->add_option("-m,--model", flags->model, "GGUF file whose template is used");
  CLI::Option* file =
      command->add_option("--chat-template-file", flags->source_file, "file with a Jinja template instead");
  command->add_option("--messages", flags->messages, "JSON file with an array of messages")->required();
  command->add_option("--tools", flags->tools, "JSON file with an array of tools");
  command->add_option("--chat-template-kwargs", flags->variables,
                      "JSON object with more variables of the template");
  command->add_flag("--add-generation-prompt", flags->add_generation_prompt,
                    "end with the beginning of an answer");
  command->add_option("--now", flags->now, "seconds since 1970 that the template sees as the time");
  command->callback([flags, model, file] {
    if (model->count() + file->count() == 0) {
      throw Error({.code = "usage.model", .expected = "-m or --chat-template-file", .found = "neither"});
    }
    apply_template(*flags);
  });
}

}  // namespace plumb
