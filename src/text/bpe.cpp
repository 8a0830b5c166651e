// Byte-pair encoding by a list of merges (Sennrich et al. 2016, arXiv:1508.07909), over bytes as in GPT-2 or
// over characters as in gemma4. GPT-2 writes each byte as a printable character; here tokens and merges are
// turned back into bytes once, while loading, so that texts are matched as they are.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <climits>
#include <map>
#include <string>

#include "base/error.h"
#include "text/encoder.h"
#include "text/pretokenize.h"
#include "text/segments.h"
#include "text/token_table.h"

namespace plumb {
namespace {

constexpr int kByteAlphabet = 0x100 + 68;  // code points below which GPT-2's alphabet lies

// The byte that each code point of the alphabet stands for, or -1 (github.com/openai/gpt-2, src/encoder.py).
constexpr std::array<int16_t, kByteAlphabet> make_byte_alphabet() {
  std::array<int16_t, kByteAlphabet> bytes{};
  int next = 0x100;
  for (int b = 0; b < 0x100; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    if (!printable) bytes[static_cast<size_t>(b)] = -1;
  }
  for (int b = 0; b < 0x100; ++b) {
    if (bytes[static_cast<size_t>(b)] < 0) {
      bytes[static_cast<size_t>(next++)] = static_cast<int16_t>(b);
    } else {
      bytes[static_cast<size_t>(b)] = static_cast<int16_t>(b);
    }
  }
  return bytes;
}
constexpr std::array<int16_t, kByteAlphabet> kByteOf = make_byte_alphabet();

// Appends the bytes that a text in the alphabet stands for; false when a character is not of the alphabet.
bool append_bytes(std::string& out, std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    size_t code = lead;
    size_t length = 1;
    if (lead >= 0x80) {
      if (i + 1 >= text.size() || lead < 0xC2 || lead > 0xC5) return false;
      code = (lead & 0x1Fu) << 6 | (static_cast<uint8_t>(text[i + 1]) & 0x3Fu);
      if ((text[i + 1] & 0xC0) != 0x80 || code >= kByteAlphabet) return false;
      length = 2;
    }
    if (kByteOf[code] < 0) return false;
    out += static_cast<char>(kByteOf[code]);
    i += length;
  }
  return true;
}

// From a pair of symbols to its merge; open addressing.
class MergeTable {
 public:
  explicit MergeTable(size_t merges) {
    size_t capacity = 16;
    while (capacity < merges * 2) capacity *= 2;
    slots_.resize(capacity);
    mask_ = capacity - 1;
  }

  int least_rank(int symbol) const { return least_.data()[symbol]; }

  Merge operator()(int left, int right) const {
    const uint64_t key = key_of(left, right);
    for (size_t at = hash(key);; ++at) {
      const Slot& slot = slots_.data()[at & mask_];
      if (slot.key == key) return slot.merge;
      if (slot.merge.rank < 0) return {-1, -1};
    }
  }

  /// After the last insert.
  void finish(size_t symbols) {
    least_.assign(symbols, INT_MAX);
    for (const Slot& slot : slots_) {
      if (slot.merge.rank < 0) continue;
      for (const auto side :
           {static_cast<size_t>(slot.key >> 32), static_cast<size_t>(slot.key & 0xFFFFFFFF)}) {
        if (slot.merge.rank < least_[side]) least_[side] = slot.merge.rank;
      }
    }
  }

  void insert(int left, int right, Merge merge) {  // the first merge of a pair stays
    const uint64_t key = key_of(left, right);
    for (size_t at = hash(key);; ++at) {
      Slot& slot = slots_.data()[at & mask_];
      if (slot.merge.rank >= 0 && slot.key == key) return;
      if (slot.merge.rank < 0) {
        slot = {key, merge};
        return;
      }
    }
  }

 private:
  struct Slot {
    uint64_t key = ~uint64_t{0};
    Merge merge = {-1, -1};
  };
  static uint64_t key_of(int left, int right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static uint64_t hash(uint64_t key) { return (key ^ key >> 29) * 0x9E3779B97F4A7C15ull >> 32; }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  std::vector<int> least_;  // by symbol: the least rank of a merge that it is a side of
};

class BpeEncoder : public Encoder {
 public:
  BpeEncoder(const Vocabulary& vocabulary, const Gguf& file)
      : vocabulary_(vocabulary), raw_(vocabulary.raw_text()), cutter_(*vocabulary.rules), merges_(0) {
    load_tokens(file);
    load_merges(file);
    for (int b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(b);
      const int id = raw_ ? table_.find(token_of_byte(static_cast<uint8_t>(b))) : table_.find({&byte, 1});
      bytes_[static_cast<size_t>(b)] = id;  // where there is none llama.cpp drops the byte, and so do we
      if (!raw_) byte_symbols_[static_cast<size_t>(b)] = symbol_of({&byte, 1});
    }
    for (const std::string_view text : texts_) {
      units_.push_back(text.empty() ? 1 : raw_ ? count_units(text) : static_cast<int>(text.size()));
    }
    merges_.finish(texts_.size());
  }

  void encode(std::string_view text, TokenSink& sink) const override {
    std::string repaired;
    if (!is_lenient_utf8(text)) {
      repaired = lenient_utf8(text);
      text = repaired;
    }
    std::vector<int> scratch;
    cutter_.cut(text, [&](std::string_view word) {
      if (raw_) {
        encode_line(word, sink);
      } else {
        encode_word(word, scratch, sink);
      }
    });
  }

  std::string bytes_of(int id) const override {
    const auto i = static_cast<size_t>(id);
    if (raw_) return unescape_spaces(texts_[i]);
    return std::string(texts_[i].empty() ? vocabulary_.tokens[i]
                                         : texts_[i]);  // not in the alphabet: as it stands
  }

 private:
  void load_tokens(const Gguf& file) {
    if (raw_) {
      texts_ = vocabulary_.tokens;
    } else {
      size_t total = 0;
      for (const std::string_view token : vocabulary_.tokens) total += token.size();
      arena_.reserve(total);  // views into it must stay
      for (const std::string_view token : vocabulary_.tokens) {
        const size_t begin = arena_.size();
        if (!append_bytes(arena_, token)) arena_.resize(begin);
        texts_.push_back(std::string_view(arena_).substr(begin));
      }
    }
    table_texts_ = texts_;  // texts_ will grow
    if (const int id = table_.build(table_texts_); id >= 0) refuse_duplicate(file, vocabulary_, id);
  }

  void load_merges(const Gguf& file) {
    const char* key = "tokenizer.ggml.merges";
    const auto merges = file.texts(key);
    if (!merges) file.missing(key, "the merges of the byte-pair encoding, best first");
    merges_ = MergeTable(merges->size());
    std::string bytes;
    int guess = 1;  // the symbol after that of the last merge
    for (size_t i = 0; i < merges->size(); ++i) {
      const std::string_view merge = (*merges)[i];
      const size_t space = merge.find(' ', 1);
      if (space == std::string_view::npos) {
        file.refuse(key, "tokenizer.merge", "two symbols with a space between",
                    fmt::format("'{}' at {}", printable(merge), i));
      }
      std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
      if (left.empty() || right.empty()) continue;  // joins nothing
      bytes.clear();
      if (raw_) {
        bytes += left;
        bytes += right;
      } else {
        if (!append_bytes(bytes, left)) continue;  // no text is ever spelled so
        const size_t half = bytes.size();
        if (!append_bytes(bytes, right)) continue;
        left = std::string_view(bytes).substr(0, half);
        right = std::string_view(bytes).substr(half);
      }
      const int a = symbol_of(left), b = symbol_of(right);
      // Merges come mostly in the order of the tokens that they form.
      if (guess < vocabulary_.size() && texts_[static_cast<size_t>(guess)] == bytes) {
        ++guess;
      } else if (texts_[static_cast<size_t>(guess - 1)] != bytes) {
        guess = symbol_of(bytes) + 1;
      }
      merges_.insert(a, b, {static_cast<int>(i), guess - 1});
      if (raw_) index_.allow(last_unit(left, a), first_unit(right, b));
    }
  }

  // The id of the token with these bytes, or of an extra symbol beyond the tokens: merges may form what is no
  // token.
  int symbol_of(std::string_view bytes) {
    const int id = table_.find(bytes);
    if (id >= 0) return id;
    const auto [at, fresh] = extra_.emplace(bytes, static_cast<int>(texts_.size()));
    if (fresh) texts_.push_back(at->first);
    return at->second;
  }

  // The outermost units of a merge's sides. A side of one unit enters the index: only such units can be
  // merged.
  Unit first_unit(std::string_view text, int symbol) {
    const Unit unit = unit_at(text, 0);
    note(unit, text, symbol);
    return unit;
  }
  Unit last_unit(std::string_view text, int symbol) {
    size_t begin = text.size() - 1;  // of the last character, if the text is UTF-8
    while (begin > 0 && text.size() - begin < 4 && (text[begin] & 0xC0) == 0x80) --begin;
    Unit unit = unit_at(text, begin);
    if (begin + unit.view().size() != text.size()) {  // it is not: read it from its start
      for (size_t at = 0; at < text.size(); at += unit.view().size()) unit = unit_at(text, at);
    }
    note(unit, text, symbol);
    return unit;
  }
  void note(const Unit& unit, std::string_view text, int symbol) {
    if (unit.view().size() == text.size() && index_.find(unit) < 0) index_.insert(unit, symbol);
  }

  void put(int symbol, TokenSink& sink) const {
    const std::string_view text = texts_[static_cast<size_t>(symbol)];
    if (symbol < vocabulary_.size()) {
      sink.put(symbol, text.size());
    } else {
      put_bytes(text, sink);
    }
  }
  void put_bytes(std::string_view text, TokenSink& sink) const {
    for (char c : text) sink.put(bytes_[static_cast<uint8_t>(c)], 1);
  }

  void encode_word(std::string_view word, std::vector<int>& scratch, TokenSink& sink) const {
    if (vocabulary_.rules->ignore_merges) {
      if (const int id = table_.find(word); id >= 0) return sink.put(id, word.size());
    }
    if (word.size() == 1) return put(byte_symbols_[static_cast<uint8_t>(word[0])], sink);
    const auto put_symbol = [&](int s) { put(s, sink); };
    SymbolOut out{sink, put_symbol};
    merge_word(
        word.size(), [&](size_t i) { return byte_symbols_[static_cast<uint8_t>(word[i])]; }, units_.data(),
        merges_, scratch, out);
  }

  // gemma4: a line, or a run of line feeds, which is one token where the vocabulary has it.
  void encode_line(std::string_view line, TokenSink& sink) const {
    if (line[0] == '\n') {
      if (const int id = table_.find(line); id >= 0) return sink.put(id, line.size());
    }
    auto stranger = [&](const Unit& unit) {
      const int id = table_.find(unit.view());
      if (id >= 0) {
        sink.put(id, unit.view().size());
      } else {
        put_bytes(unit.view(), sink);
      }
    };
    const auto put_symbol = [&](int s) { put(s, sink); };
    SymbolOut out{sink, put_symbol};
    encode_segments(UnitReader(line), index_, units_.data(), merges_, out, stranger);
  }

  const Vocabulary& vocabulary_;
  const bool raw_;
  Cutter cutter_;
  std::string arena_;                    // bytes of the tokens, unless raw_
  std::vector<std::string_view> texts_;  // of symbols: the tokens' bytes, "" for those never spelled; extras
  std::vector<std::string_view> table_texts_;      // of tokens, for table_
  std::map<std::string, int, std::less<>> extra_;  // symbols that are no tokens
  std::vector<int> units_;                         // of symbols
  TokenTable table_;
  MergeTable merges_;
  UnitIndex index_;  // raw_ only
  std::array<int, 256> byte_symbols_ = {};
  std::array<int, 256> bytes_ = {};  // token for a byte on its own, or -1
};

}  // namespace

std::unique_ptr<Encoder> make_bpe_encoder(const Vocabulary& vocabulary, const Gguf& file) {
  return std::make_unique<BpeEncoder>(vocabulary, file);
}

}  // namespace plumb
