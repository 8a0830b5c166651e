// libFuzzer target: any bytes as a chat template, rendered over a conversation with tools under small limits.
// It must end in a text within its limit or in an Error that says where.
#include <cstdlib>

#include "base/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using plumb::Json;
  static const Json messages = plumb::parse_json(
      R"([{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"\u00fc<"}]},
          {"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":{"a":[1,2.5]}}}]}])",
      "messages");
  static const Json tools = plumb::parse_json(R"([{"type":"function","function":{"name":"f"}}])", "tools");
  constexpr plumb::TemplateLimits kLimits{
      .steps = 50'000, .bytes = 4 << 20, .output_bytes = 1 << 20, .milliseconds = 2'000};
  try {
    const auto parsed = plumb::ChatTemplate::parse({reinterpret_cast<const char*>(data), size});
    const std::string text =
        parsed.render({.messages = messages, .tools = tools, .variables = {}, .bos_token = "<s>"}, kLimits);
    if (int64_t(text.size()) > kLimits.output_bytes) std::abort();
  } catch (const plumb::Error& e) {
    if (!e.code().starts_with("template.") || e.where().key.empty() || e.expected().empty()) std::abort();
  }
  return 0;
}
