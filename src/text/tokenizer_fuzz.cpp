// Any bytes through a SentencePiece and a byte-pair vocabulary: no crash, spans in order, and what can round
// trip does.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/utf8.h"
#include "text/test_vocabulary.h"
#include "text/tokenizer.h"

namespace {

using plumb::EncodeOptions;
using plumb::Gguf;
using plumb::TestVocabulary;
using plumb::Tokenizer;

struct Case {
  explicit Case(TestVocabulary v)
      : vocabulary(std::move(v)), file(vocabulary.file()), tokenizer(Tokenizer::load(file)) {}
  TestVocabulary vocabulary;
  Gguf file;
  Tokenizer tokenizer;
};

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const Tokenizer& tokenizer, std::string_view text, bool round_trip) {
  for (bool special : {false, true}) {
    const EncodeOptions options{.add_special = true, .parse_special = special};
    const auto ids = tokenizer.encode(text, options);
    const auto spans = tokenizer.encode_spans(text, options);
    require(ids.size() == spans.size());
    size_t at = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      require(spans[i].id == ids[i] && spans[i].begin >= at && spans[i].end >= spans[i].begin);
      at = spans[i].end;
    }
    require(at == text.size());
    plumb::Detokenizer stream(tokenizer, true);
    for (int id : ids) require(plumb::is_valid_utf8(stream.push(id)));
    require(plumb::is_valid_utf8(stream.finish()));
    if (round_trip && !special) require(tokenizer.decode(ids) == text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Case spm(TestVocabulary::spm());
  static const Case llama(TestVocabulary::bpe("llama-bpe"));
  static const Case deepseek(TestVocabulary::bpe("deepseek-llm"));
  static const Case gpt4o(TestVocabulary::bpe("gpt-4o"));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const bool valid = plumb::is_valid_utf8(text);
  // U+2581 reads as a space, and spaces are set after user-defined tokens.
  check(spm.tokenizer, text,
        valid && text.find("\u2581") == std::string_view::npos &&
            text.find("<mark>") == std::string_view::npos);
  for (const Case* c : {&llama, &deepseek, &gpt4o}) check(c->tokenizer, text, valid);
  return 0;
}
