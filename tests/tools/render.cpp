// Renders many chat templates for tests/chat_template_test.py: a JSON object a line in, with source,
// messages, tools, variables, add_generation_prompt and now; a JSON object a line out, with text, or with
// code and error.
#include <iostream>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "text/chat_template.h"

namespace {

using plumb::Json;

Json member(const Json& all, const char* key) {
  const Json* v = all.find(key);
  return v ? *v : Json();
}

Json render(const Json& all) {
  Json out;
  try {
    plumb::ChatInput input{.messages = member(all, "messages"),
                           .tools = member(all, "tools"),
                           .variables = member(all, "variables"),
                           .bos_token = "<BOS>",
                           .eos_token = "<EOS>"};
    input.add_generation_prompt = member(all, "add_generation_prompt").boolean().value_or(false);
    input.now = member(all, "now").integer().value_or(0);
    out.set("text", plumb::ChatTemplate::parse(*member(all, "source").text()).render(input));
  } catch (const plumb::Error& e) {
    out.set("code", e.code());
    out.set("error", e.what());
  }
  return out;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << plumb::dump(render(plumb::parse_json(line, "stdin"))) << '\n';
  }
}
