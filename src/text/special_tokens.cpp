// Special tokens by their texts; see special_tokens.h.
#include "text/special_tokens.h"

#include <algorithm>
#include <initializer_list>
#include <span>
#include <string>

namespace plumb {
namespace {

using Texts = std::span<const std::string_view>;

bool is_one_of(std::string_view text, Texts texts) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

constexpr std::string_view kEndOfGeneration[] = {"<|eot_id|>",
                                                 "<|im_end|>",
                                                 "<|end|>",
                                                 "<|return|>",
                                                 "<|call|>",
                                                 "<|flush|>",
                                                 "<|calls|>",
                                                 "<end_of_turn>",
                                                 "<|endoftext|>",
                                                 "</s>",
                                                 "<|eom_id|>",
                                                 "<EOT>",
                                                 "_<EOT>",
                                                 "[EOT]",
                                                 "[EOS]",
                                                 "<|end_of_text|>",
                                                 "<end_of_utterance>",
                                                 "<eos>",
                                                 "<turn|>",
                                                 "<|tool_response>",
                                                 "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",  // DeepSeek
                                                 "[e~["};
constexpr std::string_view kFimPrefix[] = {
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>",    "<\uFF5Cfim\u2581begin\uFF5C>",
    "<PRE>",          "\u2581<PRE>",  "<|code_prefix|>", "<|prefix|>"};
constexpr std::string_view kFimSuffix[] = {
    "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",    "<\uFF5Cfim\u2581hole\uFF5C>",
    "<SUF>",          "\u2581<SUF>",  "<|code_suffix|>", "<|suffix|>"};
constexpr std::string_view kFimMiddle[] = {
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>",    "<\uFF5Cfim\u2581end\uFF5C>",
    "<MID>",          "\u2581<MID>",  "<|code_middle|>", "<|middle|>"};
constexpr std::string_view kFimPadding[] = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"};
constexpr std::string_view kFimRepository[] = {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
                                               "<reponame>"};
constexpr std::string_view kFimSeparator[] = {"<|file_sep|>"};
// gpt-oss: shown, and matched in every text.
constexpr std::string_view kHarmony[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};

// Few tokens can be in a list; most are told by their first character.
bool may_be_special(std::string_view text) {
  return !text.empty() && (text[0] == '<' || text[0] == '[' || text[0] == '_' || text.starts_with("\u2581<"));
}

}  // namespace

void mark_special_tokens(Vocabulary& v, SpecialIds ids) {
  std::vector<int>& ends = v.end_of_generation;
  auto attribute = [&](int id) -> uint16_t& { return v.attributes[static_cast<size_t>(id)]; };
  auto text = [&](int id) { return v.tokens[static_cast<size_t>(id)]; };
  std::vector<int> candidates;
  for (int id = 0; id < v.size(); ++id) {
    if (may_be_special(text(id))) candidates.push_back(id);
  }
  auto detect = [&](int& named, Texts texts) {
    if (named >= 0) return;
    for (int id : candidates) {
      if (!is_one_of(text(id), texts)) continue;
      named = id;
      attribute(id) |= kControlToken;
      return;
    }
  };
  detect(ids.fim_prefix, kFimPrefix);
  detect(ids.fim_suffix, kFimSuffix);
  detect(ids.fim_middle, kFimMiddle);
  detect(ids.fim_padding, kFimPadding);
  detect(ids.fim_repository, kFimRepository);
  detect(ids.fim_separator, kFimSeparator);
  for (int id : candidates) {
    if (is_one_of(text(id), kEndOfGeneration)) {
      ends.push_back(id);
      attribute(id) |= kControlToken;
    }
    if (is_one_of(text(id), kHarmony)) attribute(id) = kUserDefinedToken;
  }
  for (int id : {v.eos, ids.eot, ids.eom, ids.fim_padding, ids.fim_repository, ids.fim_separator}) {
    if (id >= 0) ends.push_back(id);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());

  auto find_end = [&](std::string_view wanted) {
    for (int id : ends) {
      if (text(id) == wanted) return id;
    }
    return -1;
  };
  auto release = [&](int id, uint16_t as) {
    if (id < 0) return;
    ends.erase(std::find(ends.begin(), ends.end(), id));
    attribute(id) = as;
  };
  // In the harmony format and in solar-open <|end|> ends a message, not the turn.
  const bool call = find_end("<|call|>") >= 0 || find_end("<|calls|>") >= 0;
  if (call && (find_end("<|return|>") >= 0 || find_end("<|flush|>") >= 0))
    release(find_end("<|end|>"), kUserDefinedToken);
  // In gemma4 and plamo "</s>" is a word like any other.
  if (find_end("<|tool_response>") >= 0 || find_end("<|plamo:eos|>") >= 0)
    release(find_end("</s>"), kNormalToken);
}

void mark_stripping_tokens(Vocabulary& v, std::string_view name, std::string_view architecture) {
  std::string lower(name);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  auto contains = [](std::string_view where, std::string_view what) {
    return where.find(what) != std::string_view::npos;
  };
  auto mark = [&](std::initializer_list<std::string_view> list, uint16_t bit, bool on) {
    const Texts texts(list.begin(), list.size());
    for (size_t i = 0; i < v.tokens.size(); ++i) {
      if (is_one_of(v.tokens[i], texts))
        v.attributes[i] = static_cast<uint16_t>(on ? v.attributes[i] | bit : v.attributes[i] & ~bit);
    }
  };
  if (contains(v.pre, "jina-v2-de") || contains(v.pre, "jina-v2-es") || contains(v.pre, "jina-v2-code") ||
      contains(architecture, "nomic-bert-moe") || contains(architecture, "jina-bert-v3")) {
    mark({"<mask>"}, kStripLeft, true);
  } else if (contains(lower, "phi-3") || contains(lower, "phi3")) {
    for (uint16_t& a : v.attributes) {
      if (a & (kControlToken | kUserDefinedToken | kUnknownToken)) a |= kStripRight;
    }
    mark({"</s>"}, kStripRight, true);
    mark({"<unk>", "<s>", "<|endoftext|>"}, kStripRight, false);
  } else if (contains(lower, "modern-bert")) {
    mark({"[MASK]"}, kStripLeft, true);
  }
}

}  // namespace plumb
