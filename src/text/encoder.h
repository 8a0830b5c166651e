// The two algorithms behind Tokenizer: plain text, with no special tokens left in it, to ids.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace plumb {

/// Where an encoder puts its tokens: the id, and how many bytes of the text *as transformed* (a space as the
/// 3 bytes of U+2581, invalid bytes as U+FFFD) it stands for. id < 0: bytes that no token stands for.
class TokenSink {
 public:
  std::vector<int> ids;
  std::vector<TokenSpan>* spans = nullptr;

  /// The next text: bytes [begin, end) of `whole`; `prefixed` when a space was set before it.
  void start(std::string_view whole, size_t begin, size_t end, bool prefixed, bool escape, bool repair);

  /// So many more tokens are about to come.
  void expect(size_t count) {
    if (ids.size() + count > 2 * ids.capacity()) ids.reserve(ids.size() + count);
  }

  void put(int id, size_t bytes) {
    if (id >= 0) ids.push_back(id);
    if (spans) put_span(id, bytes);
  }

 private:
  void put_span(int id, size_t bytes);

  std::string_view text_;  // up to the end of the present fragment
  size_t at_ = 0;          // in it
  size_t pending_ = 0;     // transformed bytes of the character before at_ that are still to come
  size_t unchanged_ = 0;   // bytes from at_ on that belong to a character kept as it is
  bool escape_ = false, repair_ = false;
};

/// Where merge_word puts its symbols: `put` turns one into tokens.
template <class Put>
struct SymbolOut {
  TokenSink& sink;
  const Put& put;
  void expect(size_t count) { sink.expect(count); }
  void operator()(int symbol) const { put(symbol); }
};

class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual void encode(std::string_view text, TokenSink& sink) const = 0;
  /// The bytes that a normal token stands for.
  virtual std::string bytes_of(int id) const = 0;
};

/// SentencePiece's BPE by scores. The prefix space, if any, is already part of the text.
std::unique_ptr<Encoder> make_spm_encoder(const Vocabulary& vocabulary, const Gguf& file);

/// BPE by merges, over bytes or (gemma4) over characters.
std::unique_ptr<Encoder> make_bpe_encoder(const Vocabulary& vocabulary, const Gguf& file);

/// A token's text with each U+2581 as a space.
std::string unescape_spaces(std::string_view text);

/// Throws "tokenizer.duplicate" for the token `id`, which has the text of an earlier one.
[[noreturn]] void refuse_duplicate(const Gguf& file, const Vocabulary& vocabulary, int id);

}  // namespace plumb
