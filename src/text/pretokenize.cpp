// Cutting by PCRE2; see pretokenize.h. Source of the idea of one byte per character: llama.cpp pull request
// 6920.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenize.h"

#include <fmt/format.h>
#include <pcre2.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/utf8.h"
#include "text/character_lists.h"

namespace plumb {
namespace {

constexpr uint8_t kOtherSpace = 0x9E;  // white space above ASCII; categories take 0x80 to 0x9D
constexpr const char* kCategories[] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd",
                                       "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
                                       "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};

bool is_space(uint32_t c) {  // White_Space of Unicode's PropList.txt
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

int category(uint32_t c) {
  // What Unicode 15.1 added to the 15.0 of utf8proc 2.8.
  if (c >= 0x2EBF0 && c <= 0x2EE5D) return UTF8PROC_CATEGORY_LO;
  if ((c >= 0x2FFC && c <= 0x2FFF) || c == 0x31EF) return UTF8PROC_CATEGORY_SO;
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// The bytes, written \xNN, of the classes whose category name begins so.
std::string members(std::string_view prefix) {
  std::string s;
  for (uint32_t b = 0; b < 0x80 + std::size(kCategories); ++b) {
    const int c = b < 0x80 ? category(b) : static_cast<int>(b) - 0x80;
    if (std::string_view(kCategories[c]).starts_with(prefix)) s += fmt::format("\\x{:02x}", b);
  }
  return s;
}

// The bytes, written \\xNN, of the characters of a list: ASCII by itself, others by their bit.
std::string list_members(std::string_view name) {
  static const std::vector<uint8_t> classes = make_list_classes();
  const int bit = list_bit(name);
  PLUMB_CHECK(bit > 0);
  std::string s;
  for (uint32_t b = 0; b < 0x100; ++b) {
    if (((b < 0x80 ? classes[b] : b) & static_cast<uint32_t>(bit)) != 0) s += fmt::format("\\x{:02x}", b);
  }
  return s;
}

// One byte per character: ASCII as it is, others by class_of.
template <class ClassOf>
std::string shadow_of(std::string_view text, const ClassOf& class_of) {
  std::string shadow;
  shadow.reserve(text.size());
  uint32_t code = kReplacementCharacter;  // the last character above ASCII, and its class
  char code_class = static_cast<char>(class_of(code));
  for (size_t i = 0; i < text.size();) {
    if (text[i] >= 0) {
      shadow += text[i++];
      continue;
    }
    const Utf8Step step = utf8_step_lenient(text, i);
    if (step.code != code) {
      code = step.code;
      code_class = static_cast<char>(class_of(code));
    }
    shadow += code_class;
    i += static_cast<size_t>(step.length);
  }
  return shadow;
}

// Length in bytes of the first `characters` characters of well-formed text.
size_t bytes_of(std::string_view text, size_t characters) {
  size_t at = 0;
  for (; characters > 0; --characters) at += static_cast<size_t>(utf8_length(static_cast<uint8_t>(text[at])));
  return at;
}

std::array<bool, 256> classes_of(PreTokenizerStep::Alone which) {
  std::array<bool, 256> table{};
  if (which == PreTokenizerStep::Alone::line_ends) table['\r'] = table['\n'] = true;
  for (uint32_t b = 0; which == PreTokenizerStep::Alone::digits && b < 0x80 + std::size(kCategories); ++b) {
    table[b] = kCategories[b < 0x80 ? static_cast<size_t>(category(b)) : b - 0x80][0] == 'N';
  }
  return table;
}

struct FreeCode {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};
struct FreeContext {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};

}  // namespace

struct Cutter::Step {
  PreTokenizerStep::Kind kind;
  std::unique_ptr<pcre2_code, FreeCode> code;
  bool jit;
  std::array<bool, 256> alone;  // by class
};

// A stretch of the text and of its shadow.
struct Cutter::Piece {
  size_t begin, end;              // bytes
  size_t class_begin, class_end;  // characters
};

struct Cutter::Run {
  std::string_view text;
  std::string_view classes, lists;  // the shadows; the text itself when it is all ASCII
  const std::function<void(std::string_view)>& word;
  std::unique_ptr<pcre2_match_data, FreeMatch> match;
  std::unique_ptr<pcre2_match_context, FreeContext> context;

  // `count` classes from `from` on cover how many bytes?
  size_t bytes(size_t byte, size_t count) const {
    return classes.data() == text.data() ? count : bytes_of(text.substr(byte), count);
  }
};

uint8_t character_class(uint32_t code) {
  if (code < 0x80) return static_cast<uint8_t>(code);
  if (is_space(code)) return kOtherSpace;
  return static_cast<uint8_t>(0x80 + category(code));
}

std::string expand_classes(std::string_view pattern, bool lists) {
  const std::string space = "\\x09-\\x0d\\x20\\x9e";
  std::string s;
  bool inside = false;  // a bracket
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    if (rest.starts_with("\\p{")) {
      const size_t close = rest.find('}');
      const std::string_view name = rest.substr(3, close - 3);
      const std::string list = lists ? list_members(name) : members(name);
      s += inside ? list : "[" + list + "]";
      i += close;
    } else if (rest.starts_with("\\s")) {
      s += inside ? space : "[" + space + "]";
      ++i;
    } else if (rest.starts_with("\\S")) {
      PLUMB_CHECK(!inside);
      s += "[^" + space + "]";
      ++i;
    } else if (rest[0] == '\\') {
      s += rest.substr(0, 2);
      ++i;
    } else {
      if (rest[0] == '[' && !inside)
        inside = true;
      else if (rest[0] == ']')
        inside = false;
      s += rest[0];
    }
  }
  return s;
}

Cutter::Cutter(const PreTokenizer& rules) {
  for (const PreTokenizerStep& rule : rules.steps) {
    Step step{rule.kind, nullptr, false, classes_of(rule.alone)};
    if (rule.kind != PreTokenizerStep::Kind::digits_by_three) {
      const bool lists = rule.kind == PreTokenizerStep::Kind::lists;
      if (lists && list_classes_.empty()) list_classes_ = make_list_classes();
      std::string pattern;
      for (const char* part : rule.parts) pattern += part ? part : "";
      pattern = expand_classes(pattern, lists);
      const uint32_t flags = PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF;
      int code = 0;
      PCRE2_SIZE at = 0;
      step.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), flags,
                                    &code, &at, nullptr));
      if (!step.code) {
        throw Error({.code = "tokenizer.pattern",
                     .expected = fmt::format("PCRE2 to compile the pattern of '{}'", rules.name),
                     .found = fmt::format("its error {} at {}", code, at)});
      }
      step.jit = pcre2_jit_compile(step.code.get(), PCRE2_JIT_COMPLETE) == 0;  // else pcre2_match interprets
    }
    steps_.push_back(std::move(step));
  }
}

Cutter::~Cutter() = default;

void Cutter::cut(std::string_view text, const std::function<void(std::string_view)>& word) const {
  Run run{text, text, text, word, nullptr, nullptr};
  run.match.reset(pcre2_match_data_create(1, nullptr));
  run.context.reset(pcre2_match_context_create(nullptr));
  if (!run.match || !run.context) throw std::bad_alloc();
  // Every pattern visits a character a few times; the limit turns a mistake about that into an error.
  pcre2_set_match_limit(run.context.get(),
                        static_cast<uint32_t>(std::min<size_t>(1'000'000 + 16 * text.size(), UINT32_MAX)));
  std::string classes, lists;
  if (std::any_of(text.begin(), text.end(), [](char c) { return c < 0; })) {
    classes = shadow_of(text, character_class);
    run.classes = run.lists = classes;
    if (!list_classes_.empty()) {
      lists = shadow_of(
          text, [this](uint32_t c) { return c < list_classes_.size() ? list_classes_[c] : uint8_t{0x80}; });
      run.lists = lists;
    }
  }
  apply(0, {0, text.size(), 0, run.classes.size()}, run);
}

void Cutter::apply(size_t step, const Piece& piece, Run& run) const {
  if (piece.begin == piece.end) return;
  if (step == steps_.size() || piece.class_end - piece.class_begin == 1) {  // one character cannot be cut
    run.word(run.text.substr(piece.begin, piece.end - piece.begin));
  } else if (steps_[step].kind == PreTokenizerStep::Kind::digits_by_three) {
    group_digits(step, piece, run);
  } else {
    match(step, piece, run);
  }
}

void Cutter::match(size_t step, const Piece& piece, Run& run) const {
  const std::string_view shadow =
      steps_[step].kind == PreTokenizerStep::Kind::lists ? run.lists : run.classes;
  const std::string_view subject = shadow.substr(piece.class_begin, piece.class_end - piece.class_begin);
  Piece rest = piece;
  auto advance = [&](size_t from, size_t to) {  // gives on subject[from, to)
    Piece p = rest;
    p.class_end = p.class_begin + (to - from);
    p.end = to == subject.size() ? piece.end : p.begin + run.bytes(p.begin, to - from);
    rest.begin = p.end;
    rest.class_begin = p.class_end;
    apply(step + 1, p, run);
  };
  size_t at = 0;
  while (at < subject.size()) {
    if (steps_[step].alone[static_cast<uint8_t>(subject[at])]) {
      advance(at, at + 1);
      ++at;
      continue;
    }
    const auto run_pattern = steps_[step].jit ? pcre2_jit_match : pcre2_match;
    const int found = run_pattern(steps_[step].code.get(), reinterpret_cast<PCRE2_SPTR>(subject.data()),
                                  subject.size(), at, PCRE2_NO_UTF_CHECK, run.match.get(), run.context.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      throw Error({.code = "tokenizer.pattern_limit",
                   .expected = "a text that the pre-tokenizer can cut",
                   .found = fmt::format("error {} of PCRE2 in step {}", found, step)});
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(run.match.get());
    const size_t begin = bounds[0], end = bounds[1];  // the steps below use the same vector
    PLUMB_CHECK(end > begin);
    if (begin > at) advance(at, begin);
    advance(begin, end);
    at = end;
  }
  if (at < subject.size()) advance(at, subject.size());
}

void Cutter::group_digits(size_t step, const Piece& piece, Run& run) const {
  static const std::array<bool, 256> digit = classes_of(PreTokenizerStep::Alone::digits);
  auto is_digit = [&](size_t i) { return digit[static_cast<uint8_t>(run.classes[i])]; };
  Piece rest = piece;
  auto advance = [&](size_t count) {
    Piece p = rest;
    p.class_end = p.class_begin + count;
    p.end = p.begin + run.bytes(p.begin, count);
    rest.begin = p.end;
    rest.class_begin = p.class_end;
    apply(step + 1, p, run);
  };
  while (rest.class_begin < piece.class_end) {
    size_t end = rest.class_begin;
    while (end < piece.class_end && !is_digit(end)) ++end;
    if (end > rest.class_begin) advance(end - rest.class_begin);
    while (end < piece.class_end && is_digit(end)) ++end;
    if (const size_t first = (end - rest.class_begin) % 3; first > 0) advance(first);
    while (rest.class_begin < end) advance(3);
  }
}

bool is_lenient_utf8(std::string_view text) {
  if (is_valid_utf8(text)) return true;
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = utf8_step_lenient(text, i);
    if (step.state != Utf8Step::State::valid) return false;
    const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (step.code < least[step.length]) return false;  // an overlong form
    i += static_cast<size_t>(step.length);
  }
  return true;
}

std::string lenient_utf8(std::string_view text) {
  std::string s;
  s.reserve(text.size() + text.size() / 2);
  for (size_t i = 0; i < text.size();) {
    if (text[i] >= 0) {
      s += text[i++];
      continue;
    }
    const Utf8Step step = utf8_step_lenient(text, i);
    if (step.state == Utf8Step::State::invalid) {
      s += "\uFFFD";
    } else {
      append_utf8(s, step.code);
    }
    i += static_cast<size_t>(step.length);
  }
  return s;
}

}  // namespace plumb
