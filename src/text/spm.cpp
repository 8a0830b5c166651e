// SentencePiece's byte-pair encoding (Kudo and Richardson 2018, arXiv:1808.06226) as llama.cpp runs it: of
// all pairs of neighbours whose joined text is a token, join the one of highest score, the leftmost first.
// What is no token in the end becomes byte tokens.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "text/encoder.h"
#include "text/segments.h"
#include "text/token_table.h"

namespace plumb {
namespace {

// Rank of each token: 0 for the highest score; tokens of equal score share one.
std::vector<int> ranks_of(const std::vector<float>& scores, size_t n) {
  std::vector<int> ranks(n, 0);
  if (scores.empty()) return ranks;
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  // Files hold a few sorted runs, which merging takes at once.
  auto above = [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; };
  if (!std::is_sorted(order.begin(), order.end(), above)) std::stable_sort(order.begin(), order.end(), above);
  int rank = 0;
  for (size_t i = 0; i < n; ++i) {
    if (i > 0 && scores[order[i]] != scores[order[i - 1]]) ++rank;
    ranks[order[i]] = rank;
  }
  return ranks;
}

class SpmEncoder : public Encoder {
 public:
  SpmEncoder(const Vocabulary& vocabulary, const Gguf& file)
      : vocabulary_(vocabulary), texts_(vocabulary.tokens) {
    if (const int id = table_.build(vocabulary.tokens); id >= 0) refuse_duplicate(file, vocabulary, id);
    ranks_ = ranks_of(vocabulary.scores, vocabulary.tokens.size());
    index_units();
    units_.resize(texts_.size());
    for (size_t i = 0; i < texts_.size(); ++i) units_[i] = count_units(texts_[i]);
    for (int b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(b);
      int id = table_.find(token_of_byte(static_cast<uint8_t>(b)));
      if (id < 0) id = table_.find({&byte, 1});
      bytes_[static_cast<size_t>(b)] = id < 0 ? vocabulary.unknown : id;
      if (bytes_[static_cast<size_t>(b)] < 0) {
        file.missing("tokenizer.ggml.unknown_token_id",
                     fmt::format("a token for bytes such as {:#04x} that have none", b));
      }
    }
  }

  void encode(std::string_view text, TokenSink& sink) const override {
    Pairs pairs(*this, text.size());
    auto bytes = [&](std::string_view s) {
      for (char c : s) sink.put(bytes_[static_cast<uint8_t>(c)], 1);
    };
    auto symbol = [&](int s) {
      const std::string_view t = texts_[static_cast<size_t>(s)];
      if (s < vocabulary_.size()) {
        sink.put(s, t.size());
      } else {
        bytes(t);
      }
    };
    SymbolOut out{sink, symbol};
    encode_segments(UnitReader(text), index_, units_.data(), pairs, out,
                    [&](const Unit& unit) { bytes(unit.view()); });
  }

  std::string bytes_of(int id) const override { return unescape_spaces(texts_[static_cast<size_t>(id)]); }

 private:
  // What a pair of symbols forms, remembered in a small direct-mapped cache.
  class Pairs {
   public:
    Pairs(const SpmEncoder& encoder, size_t text_size)
        : encoder_(encoder),
          cache_(std::bit_ceil(std::clamp<size_t>(text_size, 64, 16384))),
          mask_(cache_.size() - 1) {}

    int least_rank(int) const { return -1; }

    Merge operator()(int left, int right) {
      const uint64_t key =
          static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
      Entry& entry = cache_.data()[(key * 0x9E3779B97F4A7C15ull >> 40) & mask_];
      if (entry.key != key) entry = {key, encoder_.look_up(left, right)};
      return entry.merge;
    }

   private:
    struct Entry {
      uint64_t key = ~uint64_t{0};
      Merge merge = {-1, -1};
    };
    const SpmEncoder& encoder_;
    std::vector<Entry> cache_;
    const size_t mask_;
  };

  Merge look_up(int left, int right) const {
    const std::string_view a = texts_[static_cast<size_t>(left)], b = texts_[static_cast<size_t>(right)];
    if (a.size() + b.size() > table_.longest()) return {-1, -1};
    char buffer[256];
    std::string large;
    char* joined = buffer;
    if (a.size() + b.size() > sizeof buffer) {
      large.resize(a.size() + b.size());
      joined = large.data();
    }
    std::memcpy(joined, a.data(), a.size());
    std::memcpy(joined + a.size(), b.data(), b.size());
    const int id = table_.find({joined, a.size() + b.size()});
    if (id < 0) return {-1, -1};
    const auto units = [this](int s) { return units_[static_cast<size_t>(s)]; };
    if (units(id) != units(left) + units(right))
      return {-1, -1};  // garbage that groups otherwise when joined
    return {ranks_[static_cast<size_t>(id)], id};
  }

  void index_units() {
    for (const std::string_view token : vocabulary_.tokens) {
      Unit unit, last;
      for (size_t at = 0; at < token.size(); at += unit.view().size()) {
        unit = unit_at(token, at);
        if (last.length > 0) index_.allow(last, unit);
        last = unit;
        if (index_.find(unit) >= 0) continue;
        const int id = table_.find(unit.view());
        index_.insert(unit, id >= 0 ? id : static_cast<int>(texts_.size()));
        if (id < 0) texts_.push_back(token.substr(at, unit.view().size()));  // in tokens, but none itself
      }
    }
  }

  const Vocabulary& vocabulary_;
  std::vector<std::string_view> texts_;  // of symbols: the tokens, then characters that are none
  std::vector<int> units_;               // of symbols
  std::vector<int> ranks_;               // of tokens
  TokenTable table_;
  UnitIndex index_;
  std::array<int, 256> bytes_ = {};
};

}  // namespace

std::unique_ptr<Encoder> make_spm_encoder(const Vocabulary& vocabulary, const Gguf& file) {
  return std::make_unique<SpmEncoder>(vocabulary, file);
}

}  // namespace plumb
