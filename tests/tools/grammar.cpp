// Writes random texts under grammars for tests/schema_test.py: a JSON object a line in, with schema or
// grammar, samples and seed; a JSON object a line out, with texts and the number that did not end, or with
// code and error.
#include "text/grammar.h"

#include <iostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "text/json_schema.h"
#include "text/test_vocabulary.h"

namespace {

using plumb::GrammarState;
using plumb::Json;

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

uint64_t next_random(uint64_t& seed) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return seed >> 33;
}

// One token out of those allowed. The longer the text, the rather one that closes something.
int choose(const Setting& s, std::span<const uint64_t> bits, size_t length, uint64_t& seed) {
  std::vector<int> all, closing, plain;
  for (int id = 0; id < s.tokenizer.size(); ++id) {
    if (!plumb::is_allowed(bits, id)) continue;
    all.push_back(id);
    const std::string_view text = s.tokens->text(id);
    if (s.tokens->is_end(id) || text == "}" || text == "]" || text == "\"") closing.push_back(id);
    if (text.size() == 1 && text[0] >= ' ' && text[0] < 0x7F) plain.push_back(id);
  }
  const bool close = !closing.empty() && next_random(seed) % 100 < (length > 60 ? 90 : 15);
  const std::vector<int>& from = close ? closing : !plain.empty() && next_random(seed) % 4 ? plain : all;
  return from[next_random(seed) % from.size()];
}

Json sample(const Setting& s, const Json& task) {
  Json out;
  try {
    const Json *schema = task.find("schema"), *source = task.find("grammar");
    const std::string text = schema ? plumb::json_schema_grammar(*schema) : *source->text();
    if (const Json* show = task.find("show"); show && show->boolean()) std::cerr << text;
    const GrammarState start(plumb::Grammar::parse(text, &s.tokenizer), s.tokens);
    Json texts = Json(Json::Array());
    int64_t unfinished = 0;
    uint64_t seed = uint64_t(task.find("seed")->integer().value_or(0));
    for (int64_t i = 0; i < task.find("samples")->integer().value_or(0); ++i) {
      GrammarState state = start;
      std::string written;
      for (int steps = 0; steps < 1500 && !state.ended(); ++steps) {
        const int id = choose(s, state.allowed(), written.size(), seed);
        PLUMB_CHECK(state.accept(id));
        written += s.tokens->text(id);
      }
      if (state.ended()) {
        texts.push(written);
      } else {
        ++unfinished;
      }
    }
    out.set("texts", std::move(texts));
    out.set("unfinished", unfinished);
  } catch (const plumb::Error& e) {
    out.set("code", e.code());
    out.set("error", e.what());
  }
  return out;
}

}  // namespace

int main() {
  const Setting setting;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << plumb::dump(sample(setting, plumb::parse_json(line, "stdin"))) << std::endl;
  }
}
