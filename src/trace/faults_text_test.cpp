// Faults of text give other ids than the right tokenizer; faults of sampling another choice.
#include <gtest/gtest.h>

#include <set>

#include "engine/sampler.h"
#include "text/test_vocabulary.h"
#include "trace/edits.h"

namespace plumb::trace {
namespace {

Variant without_program(const Gguf& file) {
  Variant v;
  v.file = &file;
  return v;
}

// Ids of the faults that change those of the text.
void collect(const Gguf& file, const std::string& text, std::set<std::string>& changed) {
  const EncodeOptions options{.parse_special = true};
  const std::vector<int> right = Tokenizer::load(file).encode(text, options);
  EXPECT_EQ(encode_text(without_program(file), text, options), right);
  for (const Fault& f : catalogue()) {
    if (f.id[0] != 'K') continue;
    Variant v = without_program(file);
    if (f.edit(v, 0).empty() && encode_text(v, text, options) != right) changed.insert(f.id);
  }
}

TEST(TextFaults, ChangeTheIdsOfSomePrompt) {
  const TestVocabulary spm = TestVocabulary::spm();
  TestVocabulary bpe = TestVocabulary::bpe("llama-bpe"), bpe_with_bos = TestVocabulary::bpe("llama-bpe");
  bpe_with_bos.writer.set("tokenizer.ggml.add_bos_token", true);
  bpe.writer.set("tokenizer.ggml.add_bos_token", false);
  bpe.writer.set("tokenizer.ggml.eos_token_id", uint32_t(bpe.tokens.size() - 2));
  std::set<std::string> changed;
  const Gguf spm_file = spm.file(), bpe_file = bpe.file(), with_bos = bpe_with_bos.file();
  collect(spm_file, "hello\nabab 777<|user|>llo", changed);
  collect(bpe_file, "hello\n 777<|end|> aaaa<mark>hello", changed);
  collect(with_bos, "hello 7777777<|end|> aa", changed);
  for (const Fault& f : catalogue()) {
    if (f.id[0] == 'K' && f.id != "K11") {
      EXPECT_TRUE(changed.count(f.id)) << full_name(f);
    }
  }
}

TEST(TextFaults, AnotherEosDoesNotEndTheAnswer) {
  const TestVocabulary spm = TestVocabulary::spm();
  const Gguf file = spm.file();
  Variant v = without_program(file);
  ASSERT_EQ(find_fault("K11")->edit(v, 0), "");
  const std::vector<uint8_t> bytes = changed_metadata(v);
  const Gguf changed = Gguf::parse(bytes, "changed");
  EXPECT_NE(Tokenizer::load(changed).eos(), Tokenizer::load(file).eos());
}

TEST(TextFaults, NeedATokenizer) {
  GgufWriter w;
  const std::vector<uint8_t> bytes = w.bytes();
  const Gguf file = Gguf::parse(bytes, "none");
  for (const Fault& f : catalogue()) {
    Variant v = without_program(file);
    if (f.id[0] == 'K') {
      EXPECT_NE(f.edit(v, 0), "") << f.id;
    }
  }
}

TEST(SamplingFaults, ChooseOtherwiseForSomeLogits) {
  std::vector<float> logits;
  for (int i = 0; i < 60; ++i) logits.push_back(float((i * 37) % 60) / 6);
  const std::vector<int> history = {47, 13, 47, 24};  // 47 is the likeliest
  for (const Fault& f : catalogue()) {
    if (f.id[0] != 'L') continue;
    Variant v;
    ASSERT_EQ(f.edit(v, 0), "") << f.id;
    SamplerOptions right, wrong;
    right.temperature = wrong.temperature = 3, right.top_k = wrong.top_k = 5;
    right.top_p = wrong.top_p = 0.65;
    v.sampler(wrong);
    check(wrong);
    bool differs = false;
    for (uint64_t position = 0; position < 400 && !differs; ++position)
      differs = Sampler(right, 0).choose(logits, history, position) !=
                Sampler(wrong, 0).choose(logits, history, position);
    EXPECT_TRUE(differs) << full_name(f);
  }
}

}  // namespace
}  // namespace plumb::trace
