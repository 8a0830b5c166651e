// Text to token ids and back: the tokenizers stored in GGUF files (tokenizer.ggml.*).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf.h"

namespace plumb {

/// tokenizer.ggml.token_type
enum class TokenType {
  undefined = 0,
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct EncodeOptions {
  bool add_special = true;     // BOS and EOS as the model's metadata asks
  bool parse_special = false;  // text that spells a control token becomes that token
};

/// Where a token came from: bytes [begin, end) of the text; special tokens that were added have begin == end.
struct TokenSpan {
  int id;
  size_t begin, end;
};

class Tokenizer {
 public:
  /// Reads tokenizer.ggml.*; throws Error for an unknown model or pre-tokenizer (listing those supported) and
  /// for any inconsistency. Keeps views into the file, which must outlive it.
  static Tokenizer load(const Gguf& file);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  std::string_view model() const;  // "llama" (SentencePiece) or "gpt2" (byte-level BPE)
  std::string_view pre() const;    // pre-tokenizer of a BPE vocabulary, else ""
  int size() const;                // number of ids

  // -1 where the vocabulary has none.
  int bos() const;
  int eos() const;
  int unknown() const;
  int padding() const;
  bool adds_bos() const;
  bool adds_eos() const;
  bool is_end_of_generation(
      int id) const;  // eos, eot, eom and their textual kin (<|im_end|>, <end_of_turn>, ...)

  TokenType type(int id) const;
  float score(int id) const;
  std::string_view token(int id) const;  // as stored in the file

  /// Any bytes are accepted: invalid UTF-8 becomes byte tokens or U+FFFD as llama.cpp does. Linear in
  /// text.size().
  std::vector<int> encode(std::string_view text, EncodeOptions options = {}) const;

  /// The same with each token's place in the text. Bytes that no token stands for lie between spans.
  std::vector<TokenSpan> encode_spans(std::string_view text, EncodeOptions options = {}) const;

  /// The bytes that the token stands for. Control tokens give "" unless `special`. Any id is accepted: one
  /// outside the vocabulary throws Error "tokenizer.id".
  std::string piece(int id, bool special = false) const;

  /// Text of all ids; removes the leading space that encode added where the model asks for it.
  std::string decode(const std::vector<int>& ids, bool special = false) const;

 private:
  friend class Detokenizer;
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Text as it streams: holds back bytes of an unfinished UTF-8 character, so that every piece given out is
/// whole.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool special = false);

  /// The text that is complete after this token; may be empty. Bytes that can never become valid UTF-8 are
  /// given out as U+FFFD, so the result is always valid UTF-8.
  std::string push(int id);

  /// What is still held back, as U+FFFD where incomplete.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool special_;
  std::string pending_;
};

}  // namespace plumb
