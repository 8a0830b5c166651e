#include "text/chat_template.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/overload.h"
#include "base/utf8.h"
#include "text/jinja_eval.h"

namespace plumb {
namespace {

using jinja::Heap;
using jinja::Value;

Value to_value(Heap& heap, const Json& json) {
  return std::visit(
      Overload{
          [](std::monostate) -> Value { return jinja::None{}; },
          [](bool v) -> Value { return v; },
          [](int64_t v) -> Value { return v; },
          [](uint64_t v) -> Value { return double(v); },
          [](float v) -> Value { return double(v); },
          [](double v) -> Value { return v; },
          [&](const std::string& v) -> Value { return jinja::make_text(heap, to_valid_utf8(v)); },
          [&](const Json::Array& v) -> Value {
            std::vector<Value> items;
            for (const Json& x : v) items.push_back(to_value(heap, x));
            return jinja::make_sequence(heap, std::move(items));
          },
          [&](const Json::Object& v) -> Value {
            std::vector<std::pair<Value, Value>> members;
            for (const auto& [k, x] : v) {
              members.emplace_back(jinja::make_text(heap, to_valid_utf8(k)), to_value(heap, x));
            }
            return jinja::make_dict(heap, std::move(members));
          },
      },
      json.value());
}

void define_all(jinja::Interpreter& in, Heap& heap, const ChatInput& input) {
  in.define("messages", to_value(heap, input.messages));
  in.define("tools", to_value(heap, input.tools));
  in.define("documents", jinja::None{});
  in.define("add_generation_prompt", input.add_generation_prompt);
  in.define("bos_token", jinja::make_text(heap, to_valid_utf8(input.bos_token)));
  in.define("eos_token", jinja::make_text(heap, to_valid_utf8(input.eos_token)));
  if (const Json::Object* more = input.variables.object()) {
    for (const auto& [name, v] : *more) in.redefine(name, to_value(heap, v));
  }
}

}  // namespace

struct ChatTemplate::State {
  jinja::NodePtr tree;
};

ChatTemplate::ChatTemplate(std::unique_ptr<State> state) : state_(std::move(state)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::parse(std::string_view source) {
  if (int64_t(source.size()) > kMaxTemplateBytes) {
    jinja::fail_at({}, "template.too_large", fmt::format("at most {} bytes", kMaxTemplateBytes),
                   fmt::format("{} bytes", source.size()));
  }
  return ChatTemplate(std::make_unique<State>(State{jinja::parse(to_valid_utf8(source))}));
}

std::string ChatTemplate::render(const ChatInput& input, const TemplateLimits& limits) const {
  Heap heap(limits.bytes, limits.steps, limits.milliseconds);
  try {
    jinja::Interpreter interpreter(heap, limits.output_bytes, input.now);
    define_all(interpreter, heap, input);
    return interpreter.render(*state_->tree);
  } catch (jinja::Fault& fault) {  // while the input was taken over
    jinja::fail_at({}, fault.code, std::move(fault.expected), std::move(fault.found));
  }
}

}  // namespace plumb
