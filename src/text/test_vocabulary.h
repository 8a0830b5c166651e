// Small vocabularies for tests and fuzzing, made as GGUF files in memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "gguf/gguf.h"
#include "gguf/writer.h"

namespace plumb {

/// What a test wants in the file; change it, then ask for file().
class TestVocabulary {
 public:
  std::string model, pre;
  std::vector<std::string> tokens, merges;
  std::vector<float> scores;
  std::vector<int32_t> types;
  GgufWriter writer;

  int add(std::string token, int32_t type = 1, float score = 0) {
    tokens.push_back(std::move(token));
    types.push_back(type);
    scores.push_back(score);
    return static_cast<int>(tokens.size()) - 1;
  }

  /// <unk> <s> </s>, 256 byte tokens from id 3, then letters and a few words with scores in falling order,
  /// and
  /// "<|user|>" (control), "<mark>" (user-defined).
  static TestVocabulary spm() {
    TestVocabulary v;
    v.model = "llama";
    v.add("<unk>", 2);
    v.add("<s>", 3);
    v.add("</s>", 3);
    for (int b = 0; b < 256; ++b) {
      constexpr char hex[] = "0123456789ABCDEF";
      v.add(std::string("<0x") + hex[b >> 4] + hex[b & 15] + ">", 6);
    }
    float score = 0;
    for (const char* word : {"\u2581\u2581", "\u2581\u2581\u2581\u2581", "ab", "aa", "aaaa", "\u2581a",
                             "abab", "he", "ll", "llo", "hello", "\u2581hello", "77", "777"}) {
      v.add(word, 1, --score);
    }
    for (const char* letter : {"\u2581", "a", "b", "e", "h", "l", "o", "7", "\u00E9"})
      v.add(letter, 1, --score);
    v.add("<|user|>", 3);
    v.add("<mark>", 4);
    return v;
  }

  /// The byte alphabet in ids 0 to 255, then "he", "ll", "llo", "hello", " a", "aa", "aaaa", "  ", "    ",
  /// 0xF0 0x9F, then "<|end|>" (control), "<mark>" (user-defined).
  static TestVocabulary bpe(std::string_view pre) {
    TestVocabulary v;
    v.model = "gpt2";
    v.pre = pre;
    for (int b = 0; b < 256; ++b) v.add(letter(b));
    const std::string space = letter(' ');
    for (auto [left, right] :
         std::vector<std::pair<std::string, std::string>>{{"h", "e"},
                                                          {"l", "l"},
                                                          {"ll", "o"},
                                                          {"he", "llo"},
                                                          {space, "a"},
                                                          {"a", "a"},
                                                          {"aa", "aa"},
                                                          {space, space},
                                                          {space + space, space + space},
                                                          {letter(0xF0), letter(0x9F)},
                                                          {letter(0xEF), letter(0xBF)},
                                                          {letter(0xEF) + letter(0xBF), letter(0xBD)},
                                                          {"7", "7"}}) {
      v.add(left + right);
      v.merges.push_back(left + " " + right);
    }
    v.add("<|end|>", 3);
    v.add("<mark>", 4);
    v.writer.set("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(v.tokens.size() - 2));
    return v;
  }

  /// GPT-2's character for a byte.
  static std::string letter(int byte) {
    auto printable = [](int b) { return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE; };
    int code = byte;
    if (!printable(byte)) {
      code = 0x100;
      for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
    }
    std::string s;
    append_utf8(s, static_cast<uint32_t>(code));
    return s;
  }

  /// Views into this object, which must outlive it and its file().
  Gguf file() const {
    GgufWriter w = writer;
    w.set("tokenizer.ggml.model", std::string_view(model));
    if (!pre.empty()) w.set("tokenizer.ggml.pre", std::string_view(pre));
    w.set_array("tokenizer.ggml.tokens", std::span<const std::string_view>(views(tokens)));
    if (!scores.empty()) w.set_array("tokenizer.ggml.scores", std::span<const float>(scores));
    if (!types.empty()) w.set_array("tokenizer.ggml.token_type", std::span<const int32_t>(types));
    if (model != "llama")
      w.set_array("tokenizer.ggml.merges", std::span<const std::string_view>(views(merges)));
    bytes_ = w.bytes();
    return Gguf::parse(bytes_, "vocabulary");
  }

 private:
  static std::vector<std::string_view> views(const std::vector<std::string>& strings) {
    return {strings.begin(), strings.end()};
  }

  mutable std::vector<uint8_t> bytes_;
};

}  // namespace plumb
