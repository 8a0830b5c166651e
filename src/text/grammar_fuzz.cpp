// libFuzzer target: any bytes as a grammar and as a JSON schema, followed for some tokens. It must end in an
// Error or in a state whose mask and whose acceptance agree.
#include <cstdlib>

#include "base/error.h"
#include "text/grammar.h"
#include "text/json_schema.h"
#include "text/test_vocabulary.h"

namespace {

struct Setting {
  Setting()
      : vocabulary(plumb::TestVocabulary::bpe("llama-bpe")),
        file(vocabulary.file()),
        tokenizer(plumb::Tokenizer::load(file)),
        tokens(std::make_shared<const plumb::GrammarVocabulary>(tokenizer)) {}
  plumb::TestVocabulary vocabulary;
  plumb::Gguf file;
  plumb::Tokenizer tokenizer;
  std::shared_ptr<const plumb::GrammarVocabulary> tokens;
};

void follow(const Setting& s, std::string_view source) {
  plumb::GrammarState state(plumb::Grammar::parse(source, &s.tokenizer), s.tokens);
  uint32_t choice = uint32_t(source.size());
  for (int step = 0; step < 20 && !state.ended(); ++step) {
    const auto bits = state.allowed();
    int chosen = -1;
    for (int i = 0; i < s.tokenizer.size() && chosen < 0; ++i) {
      choice = choice * 1664525 + 1013904223;
      const int id = int(choice % uint32_t(s.tokenizer.size()));
      plumb::GrammarState copy = state;
      if (copy.accept(id) != plumb::is_allowed(bits, id)) std::abort();
      if (plumb::is_allowed(bits, id)) chosen = id;
    }
    for (int id = 0; chosen < 0; ++id) chosen = plumb::is_allowed(bits, id) ? id : -1;
    if (!state.accept(chosen)) std::abort();
  }
}

template <class F>
void refused_or(F f) {
  try {
    f();
  } catch (const plumb::Error& e) {
    const std::string& code = e.code();
    if (!code.starts_with("grammar.") && !code.starts_with("schema.") && !code.starts_with("json."))
      std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Setting setting;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  refused_or([&] { follow(setting, text); });
  refused_or([&] { follow(setting, plumb::json_schema_grammar(plumb::parse_json(text, "schema"))); });
  return 0;
}
