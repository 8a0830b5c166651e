// The public face of the tokenizers: special tokens and BOS/EOS around the encoders, ids back to text, and
// the stream that holds back unfinished characters. Behaviour is llama.cpp's (src/llama-vocab.cpp,
// llama_vocab::impl::tokenize).
#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/encoder.h"
#include "text/special_splitter.h"
#include "text/vocabulary.h"

namespace plumb {

struct Tokenizer::State {
  explicit State(const Gguf& file)
      : vocabulary(read_vocabulary(file)),
        splitter(vocabulary),
        encoder(vocabulary.is_bpe() ? make_bpe_encoder(vocabulary, file)
                                    : make_spm_encoder(vocabulary, file)) {}

  Vocabulary vocabulary;
  SpecialSplitter splitter;
  std::unique_ptr<Encoder> encoder;

  void check(int id) const {
    if (id >= 0 && id < vocabulary.size()) return;
    throw Error({.code = "tokenizer.id",
                 .expected = fmt::format("an id from 0 to {}", vocabulary.size() - 1),
                 .found = fmt::format("{}", id)});
  }

  void encode(std::string_view text, EncodeOptions options, TokenSink& sink) const {
    const Vocabulary& v = vocabulary;
    if (options.add_special && v.add_bos) sink.put(v.bos, 0);
    bool after_special = true;
    std::string prefixed;
    for (const Fragment& f : splitter.split(text, options.parse_special)) {
      const bool prefix = f.id < 0 && v.add_space_prefix && after_special;
      sink.start(text, f.begin, f.end, prefix, f.id < 0 && v.raw_text(), f.id < 0 && v.is_bpe());
      if (f.id >= 0) {
        sink.put(f.id, f.end - f.begin);
      } else if (prefix) {
        prefixed.assign(1, ' ').append(text.substr(f.begin, f.end - f.begin));
        encoder->encode(prefixed, sink);
      } else {
        encoder->encode(text.substr(f.begin, f.end - f.begin), sink);
      }
      after_special = f.id >= 0;
    }
    if (options.add_special && v.add_eos) {
      sink.start(text, text.size(), text.size(), false, false, false);
      sink.put(v.eos, 0);
    }
  }
};

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const Gguf& file) { return Tokenizer(std::make_unique<State>(file)); }

std::string_view Tokenizer::model() const { return state_->vocabulary.model; }
std::string_view Tokenizer::pre() const { return state_->vocabulary.pre; }
int Tokenizer::size() const { return state_->vocabulary.size(); }
int Tokenizer::bos() const { return state_->vocabulary.bos; }
int Tokenizer::eos() const { return state_->vocabulary.eos; }
int Tokenizer::unknown() const { return state_->vocabulary.unknown; }
int Tokenizer::padding() const { return state_->vocabulary.padding; }
bool Tokenizer::adds_bos() const { return state_->vocabulary.add_bos; }
bool Tokenizer::adds_eos() const { return state_->vocabulary.add_eos; }

bool Tokenizer::is_end_of_generation(int id) const {
  const std::vector<int>& ends = state_->vocabulary.end_of_generation;
  return std::binary_search(ends.begin(), ends.end(), id);
}

TokenType Tokenizer::type(int id) const {
  state_->check(id);
  const Vocabulary& v = state_->vocabulary;
  if (v.has(id, kControlToken)) return TokenType::control;
  if (v.has(id, kUnknownToken)) return TokenType::unknown;
  if (v.has(id, kUserDefinedToken)) return TokenType::user_defined;
  if (v.has(id, kByteToken)) return TokenType::byte;
  if (v.has(id, kUnusedToken)) return TokenType::unused;
  return v.has(id, kNormalToken) ? TokenType::normal : TokenType::undefined;
}

float Tokenizer::score(int id) const {
  state_->check(id);
  const std::vector<float>& scores = state_->vocabulary.scores;
  return scores.empty() ? 0.0f : scores[static_cast<size_t>(id)];
}

std::string_view Tokenizer::token(int id) const {
  state_->check(id);
  return state_->vocabulary.tokens[static_cast<size_t>(id)];
}

std::vector<int> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  TokenSink sink;
  state_->encode(text, options, sink);
  return std::move(sink.ids);
}

std::vector<TokenSpan> Tokenizer::encode_spans(std::string_view text, EncodeOptions options) const {
  std::vector<TokenSpan> spans;
  TokenSink sink;
  sink.spans = &spans;
  state_->encode(text, options, sink);
  return spans;
}

std::string Tokenizer::piece(int id, bool special) const {
  state_->check(id);
  const Vocabulary& v = state_->vocabulary;
  const std::string_view text = v.tokens[static_cast<size_t>(id)];
  if (v.has(id, kControlToken | kUnknownToken)) return special ? std::string(text) : "";
  if (v.has(id, kUserDefinedToken)) return std::string(text);
  if (v.has(id, kNormalToken)) return state_->encoder->bytes_of(id);
  if (v.has(id, kByteToken)) return std::string(1, static_cast<char>(byte_of_token(text)));
  return "";  // unused, undefined
}

std::string Tokenizer::decode(const std::vector<int>& ids, bool special) const {
  std::string text;
  bool at_start = true;  // the space that encode set before the first word is still to come
  for (int id : ids) {
    const std::string piece_text = piece(id, special);
    if (at_start && id != bos()) {
      at_start = false;
      if (state_->vocabulary.add_space_prefix && piece_text.starts_with(' ')) {
        text.append(piece_text, 1);
        continue;
      }
    }
    text += piece_text;
  }
  return text;
}

void TokenSink::start(std::string_view whole, size_t begin, size_t end, bool prefixed, bool escape,
                      bool repair) {
  text_ = whole.substr(0, end);
  at_ = begin;
  pending_ = prefixed ? 3 : 0;
  unchanged_ = 0;
  escape_ = escape;
  repair_ = repair;
}

// Walks the text and its transformed form side by side until the token's bytes are used up.
void TokenSink::put_span(int id, size_t bytes) {
  const size_t begin = at_;
  while (bytes > 0) {
    if (pending_ == 0) {
      if (at_ == text_.size()) break;
      if (escape_ && text_[at_] == ' ') {
        pending_ = 3;
        ++at_;
      } else if (repair_ && unchanged_ == 0) {
        const Utf8Step step = utf8_step_lenient(text_, at_);
        const size_t length = step.code < 0x80 ? 1 : step.code < 0x800 ? 2 : step.code < 0x10000 ? 3 : 4;
        if (length == static_cast<size_t>(step.length)) {
          unchanged_ = length;
          continue;
        }
        pending_ = length;
        at_ += static_cast<size_t>(step.length);
      } else {
        if (unchanged_ > 0) --unchanged_;
        pending_ = 1;
        ++at_;
      }
    }
    const size_t used = std::min(bytes, pending_);
    bytes -= used;
    pending_ -= used;
  }
  if (id >= 0) spans->push_back({id, begin, at_});
}

std::string unescape_spaces(std::string_view text) {
  std::string s;
  for (size_t i = 0; i < text.size();) {
    const bool blank = text.substr(i).starts_with("\u2581");
    s += blank ? ' ' : text[i];
    i += blank ? 3 : 1;
  }
  return s;
}

void refuse_duplicate(const Gguf& file, const Vocabulary& vocabulary, int id) {
  file.refuse("tokenizer.ggml.tokens", "tokenizer.duplicate", "tokens that differ from each other",
              fmt::format("'{}' again at {}", printable(vocabulary.tokens[static_cast<size_t>(id)]), id));
}

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool special)
    : tokenizer_(&tokenizer), special_(special) {}

std::string Detokenizer::push(int id) {
  pending_ += tokenizer_->piece(id, special_);
  std::string out;
  size_t at = 0;
  while (at < pending_.size()) {
    const Utf8Step step = utf8_step(pending_, at);
    if (step.state == Utf8Step::State::incomplete) break;
    if (step.state == Utf8Step::State::valid) {
      out.append(pending_, at, static_cast<size_t>(step.length));
    } else {
      append_utf8(out, kReplacementCharacter);
    }
    at += static_cast<size_t>(step.length);
  }
  pending_.erase(0, at);
  return out;
}

std::string Detokenizer::finish() {
  std::string out = to_valid_utf8(pending_);
  pending_.clear();
  return out;
}

}  // namespace plumb
