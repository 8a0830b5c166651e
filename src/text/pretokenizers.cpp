// The pre-tokenizers: each pattern is ours to run and a constant; none comes from a file or a client. They
// follow the tokenizer.json of the named models, with llama.cpp (src/llama-vocab.cpp) as the register of
// names and of steps. Where llama.cpp only approximates the model's own pattern (gpt-4o, tekken: its letters
// of either case), the model's is kept.
#include "text/pretokenizers.h"

namespace plumb {
namespace {

using Kind = PreTokenizerStep::Kind;
using Alone = PreTokenizerStep::Alone;

// The pattern of GPT-2 (github.com/openai/gpt-2, src/encoder.py).
constexpr const char* kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Parts of cl100k_base and its descendants (github.com/openai/tiktoken, tiktoken_ext/openai_public.py).
constexpr const char* kContraction = R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]))";
constexpr const char* kLetters = R"([^\r\n\p{L}\p{N}]?\p{L}+)";
constexpr const char* kPunctuation = R"( ?[^\s\p{L}\p{N}]+[\r\n]*)";
constexpr const char* kPunctuationOrSlash = R"( ?[^\s\p{L}\p{N}]+[\r\n/]*)";
constexpr const char* kSpaces = R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
// Letters as lower-case tails: "aB" are two words, "Ab" and "ABc" one.
constexpr const char* kCasedLower =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)";
constexpr const char* kCasedUpper =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)";

constexpr PreTokenizerStep kDefault[] = {
    {Kind::classes, {R"([\p{P}\$\+<=>\^~\|]+)"}},
    {Kind::classes, {kGpt2Words}},
    {Kind::classes, {R"(\p{N}+)"}},
    {Kind::classes, {"[0-9][0-9][0-9]"}},
};
constexpr PreTokenizerStep kGpt2[] = {{Kind::classes, {kGpt2Words}}};
constexpr PreTokenizerStep kStarcoder[] = {{Kind::classes, {R"(\p{N})"}, Alone::digits},
                                           {Kind::classes, {kGpt2Words}}};
constexpr PreTokenizerStep kFalcon[] = {
    {Kind::classes, {R"([\p{P}\$\+<=>\^~\|`]+)"}},
    {Kind::classes, {kGpt2Words}},
    {Kind::classes, {"[0-9][0-9][0-9]"}},
};
constexpr PreTokenizerStep kLlama3[] = {
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}{1,3}|)", kPunctuation, "|", kSpaces}},
};
constexpr PreTokenizerStep kQwen2[] = {
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}|)", kPunctuation, "|", kSpaces}, Alone::digits},
};
constexpr PreTokenizerStep kQwen35[] = {
    {Kind::classes,
     {kContraction, R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)", kSpaces},
     Alone::digits},
};
constexpr PreTokenizerStep kUfakzeka[] = {
    {Kind::classes, {kLetters, R"(|\p{N}|)", kPunctuation, "|", kSpaces}, Alone::digits},
};
constexpr PreTokenizerStep kMinicpm5[] = {
    {Kind::classes, {R"(\p{N}{1,3})"}},
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}+|)", kPunctuation, "|", kSpaces}},
};
constexpr PreTokenizerStep kSeedCoder[] = {
    {Kind::classes,
     {kContraction, "|", kLetters, R"(|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)", kSpaces},
     Alone::digits},
};
constexpr PreTokenizerStep kBailing[] = {
    {Kind::classes,
     {R"('(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|)", kLetters, R"(|\p{N}|)", kPunctuation,
      R"(|\s*[\r\n]|\s+(?!\S)|\s+)"},
     Alone::digits},
};
constexpr PreTokenizerStep kGpt4o[] = {
    {Kind::classes,
     {kCasedLower, kContraction, "?|", kCasedUpper, kContraction, R"(?|\p{N}{1,3}|)", kPunctuationOrSlash,
      "|", kSpaces}},
};
constexpr PreTokenizerStep kTekken[] = {
    {Kind::classes,
     {kCasedLower, "|", kCasedUpper, R"(|\p{N}|)", kPunctuationOrSlash, "|", kSpaces},
     Alone::digits},
};
constexpr PreTokenizerStep kTinyAya[] = {
    {Kind::digits_by_three, {""}},
    {Kind::classes,
     {kCasedLower, kContraction, "?|", kCasedUpper, kContraction, R"(?|\p{N}{1,3}|)", kPunctuationOrSlash,
      "|", kSpaces}},
};
constexpr PreTokenizerStep kDeepseekLlm[] = {
    {Kind::classes, {R"([\r\n])"}, Alone::line_ends},
    {Kind::lists, {R"(\p{space}?\p{letters}+)"}},
    {Kind::lists, {R"(\p{space}?\p{marks}+)"}},
    {Kind::classes, {R"((?<!\s)\s++$)"}},  // "\s+$", linear in runs of spaces that do not end the piece
    {Kind::lists, {R"(\p{han}+)"}},
    {Kind::classes, {R"(\p{N}+)"}},
};
constexpr PreTokenizerStep kDeepseekCoder[] = {
    {Kind::classes, {R"([\r\n])"}, Alone::line_ends},
    {Kind::classes, {R"(\s?\p{L}+)"}},
    {Kind::classes, {R"(\s?\p{P}+)"}},
    {Kind::lists, {R"(\p{han}+)"}},
    {Kind::classes, {R"(\p{N})"}, Alone::digits},
};
constexpr PreTokenizerStep kDeepseekV3[] = {
    {Kind::classes, {R"(\p{N}{1,3})"}},
    {Kind::lists, {R"(\p{kana}+)"}},
    {Kind::classes,
     {R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
      R"(| ?[\p{P}\p{S}]+[\r\n]*|)",
      kSpaces}},
};
constexpr PreTokenizerStep kLines[] = {{Kind::classes, {R"([^\n]+|\n+)"}}};
constexpr PreTokenizerStep kLaguna[] = {
    {Kind::classes, {R"([^\n]+|\n+)"}},
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}|)", kPunctuation, "|", kSpaces}, Alone::digits},
};

constexpr PreTokenizer kAll[] = {
    {"default", kDefault},
    {"llama3", kLlama3, true, true},
    {"llama-v3", kLlama3, true, true},
    {"llama-bpe", kLlama3, true, true},
    {"falcon3", kLlama3, true, true},
    {"falcon-h1", kLlama3, true, true},
    {"pixtral", kLlama3, true, true},
    {"midm-2.0", kLlama3, true, true},
    {"lfm2", kLlama3, true, true},
    {"jina-v5-nano", kLlama3, true, true},
    {"dbrx", kLlama3},
    {"smaug-bpe", kLlama3},
    {"chatglm-bpe", kLlama3, false, false, true},
    {"glm4", kLlama3, true, false, true},
    {"glm5", kLlama3, true, false, true},
    {"qwen2", kQwen2},
    {"deepseek-r1-qwen", kQwen2},
    {"kormo", kQwen2},
    {"f2llmv2", kQwen2},
    {"megrez", kQwen2},
    {"stablelm2", kQwen2},
    {"hunyuan", kQwen2},
    {"solar-open", kQwen2},
    {"grok-2", kQwen2},
    {"qwen35", kQwen35},
    {"laguna", kLaguna},
    {"ufakzeka", kUfakzeka},
    {"minicpm5", kMinicpm5, true},
    {"seed-coder", kSeedCoder},
    {"bailingmoe", kBailing},
    {"bailingmoe2", kBailing},
    {"llada-moe", kBailing},
    {"gpt-2", kGpt2},
    {"phi-2", kGpt2},
    {"jina-es", kGpt2},
    {"jina-de", kGpt2},
    {"jina-v2-es", kGpt2},
    {"jina-v2-de", kGpt2},
    {"jina-v1-en", kGpt2},
    {"jina-v2-code", kGpt2},
    {"roberta-bpe", kGpt2},
    {"modern-bert", kGpt2},
    {"gigachat", kGpt2},
    {"a.x-4.0", kGpt2},
    {"mellum", kGpt2},
    {"exaone4", kGpt2},
    {"mpt", kGpt2},
    {"olmo", kGpt2},
    {"jais", kGpt2},
    {"trillion", kGpt2},
    {"granite-docling", kGpt2},
    {"starcoder", kStarcoder},
    {"refact", kStarcoder},
    {"command-r", kStarcoder},
    {"smollm", kStarcoder},
    {"codeshell", kStarcoder},
    {"exaone", kStarcoder},
    {"minerva-7b", kStarcoder},
    {"mellum2", kStarcoder},
    {"falcon", kFalcon},
    {"gpt-4o", kGpt4o},
    {"llama4", kGpt4o},
    {"kanana2", kGpt4o},
    {"talkie", kGpt4o},
    {"minimax-m2", kGpt4o},
    {"tekken", kTekken, true, true},
    {"tiny_aya", kTinyAya},
    {"cohere2moe", kTinyAya},
    {"deepseek-llm", kDeepseekLlm},
    {"deepseek-coder", kDeepseekCoder},
    {"deepseek-v3", kDeepseekV3},
    {"hunyuan-dense", kDeepseekV3},
    {"joyai-llm", kDeepseekV3},
    {"hy_v4", kDeepseekV3},
    {"gemma4", kLines, false, true, false, true},
};

}  // namespace

const PreTokenizer* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizer& p : kAll) {
    if (p.name == name) return &p;
  }
  return nullptr;
}

std::span<const PreTokenizer> all_pre_tokenizers() { return kAll; }

}  // namespace plumb
