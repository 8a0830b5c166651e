// The pre-tokenizers: each pattern is ours to run and a constant; none comes from a file or a client. They
// follow the tokenizer.json of the named models, with llama.cpp (src/llama-vocab.cpp) as the register of
// names and of steps. Where llama.cpp only approximates the model's own pattern (gpt-4o, tekken: its letters
// of either case), the model's is kept.
#include "text/pretokenizers.h"

namespace plumb {
namespace {

using Kind = PreTokenizerStep::Kind;

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

// The letters of deepseek-llm's tokenizer.json, which lists them.
constexpr const char* kDeepseekLetters =
    "[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}"
    "\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}"
    "\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}"
    "\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}"
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}"
    "\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}"
    "\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}"
    "\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}"
    "\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}"
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}"
    "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}"
    "\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"
    "\\x{1E900}-\\x{1E943}]"
    "+";

// Han, and all between Samaritan and Han but the spaces: deepseek's "[U+4E00-U+9FA5 U+0800-U+4E00
// U+AC00-U+D7FF]".
constexpr const char* kDeepseekHan =
    "[\\x{800}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}"
    "-\\x{2FFF}"
    "\\x{3001}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+";

// White space where a pattern runs over the text itself.
constexpr const char* kSpace =
    "[\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}]";

constexpr PreTokenizerStep kDefault[] = {
    {Kind::classes, {R"([\p{P}\$\+<=>\^~\|]+)"}},
    {Kind::classes, {kGpt2Words}},
    {Kind::classes, {R"(\p{N}+)"}},
    {Kind::classes, {"[0-9][0-9][0-9]"}},
};
constexpr PreTokenizerStep kGpt2[] = {{Kind::classes, {kGpt2Words}}};
constexpr PreTokenizerStep kStarcoder[] = {{Kind::classes, {R"(\p{N})"}}, {Kind::classes, {kGpt2Words}}};
constexpr PreTokenizerStep kFalcon[] = {
    {Kind::classes, {R"([\p{P}\$\+<=>\^~\|`]+)"}},
    {Kind::classes, {kGpt2Words}},
    {Kind::classes, {"[0-9][0-9][0-9]"}},
};
constexpr PreTokenizerStep kLlama3[] = {
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}{1,3}|)", kPunctuation, "|", kSpaces}},
};
constexpr PreTokenizerStep kQwen2[] = {
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}|)", kPunctuation, "|", kSpaces}},
};
constexpr PreTokenizerStep kQwen35[] = {
    {Kind::classes,
     {kContraction, R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)", kSpaces}},
};
constexpr PreTokenizerStep kUfakzeka[] = {
    {Kind::classes, {kLetters, R"(|\p{N}|)", kPunctuation, "|", kSpaces}},
};
constexpr PreTokenizerStep kMinicpm5[] = {
    {Kind::classes, {R"(\p{N}{1,3})"}},
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}+|)", kPunctuation, "|", kSpaces}},
};
constexpr PreTokenizerStep kSeedCoder[] = {
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)", kSpaces}},
};
constexpr PreTokenizerStep kBailing[] = {
    {Kind::classes,
     {R"('(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|)", kLetters, R"(|\p{N}|)", kPunctuation,
      R"(|\s*[\r\n]|\s+(?!\S)|\s+)"}},
};
constexpr PreTokenizerStep kGpt4o[] = {
    {Kind::classes,
     {kCasedLower, kContraction, "?|", kCasedUpper, kContraction, R"(?|\p{N}{1,3}|)", kPunctuationOrSlash,
      "|", kSpaces}},
};
constexpr PreTokenizerStep kTekken[] = {
    {Kind::classes, {kCasedLower, "|", kCasedUpper, R"(|\p{N}|)", kPunctuationOrSlash, "|", kSpaces}},
};
constexpr PreTokenizerStep kTinyAya[] = {
    {Kind::digits_by_three, {""}},
    {Kind::classes,
     {kCasedLower, kContraction, "?|", kCasedUpper, kContraction, R"(?|\p{N}{1,3}|)", kPunctuationOrSlash,
      "|", kSpaces}},
};
constexpr PreTokenizerStep kDeepseekLlm[] = {
    {Kind::classes, {R"([\r\n])"}},
    {Kind::utf8, {kSpace, "?", kDeepseekLetters}},
    // Ideographic space, the first of the last range, counts as a space for llama.cpp and is left out here.
    {Kind::utf8,
     {kSpace, "?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3001}\\x{3002}]+"}},
    {Kind::classes, {R"((?<!\s)\s++$)"}},  // "\s+$", linear in runs of spaces that do not end the piece
    {Kind::utf8, {kDeepseekHan}},
    {Kind::classes, {R"(\p{N}+)"}},
};
constexpr PreTokenizerStep kDeepseekCoder[] = {
    {Kind::classes, {R"([\r\n])"}}, {Kind::classes, {R"(\s?\p{L}+)"}}, {Kind::classes, {R"(\s?\p{P}+)"}},
    {Kind::utf8, {kDeepseekHan}},   {Kind::classes, {R"(\p{N})"}},
};
constexpr PreTokenizerStep kDeepseekV3[] = {
    {Kind::classes, {R"(\p{N}{1,3})"}},
    {Kind::utf8, {"[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"}},
    {Kind::classes,
     {R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
      R"(| ?[\p{P}\p{S}]+[\r\n]*|)",
      kSpaces}},
};
constexpr PreTokenizerStep kLines[] = {{Kind::classes, {R"([^\n]+|\n+)"}}};
constexpr PreTokenizerStep kLaguna[] = {
    {Kind::classes, {R"([^\n]+|\n+)"}},
    {Kind::classes, {kContraction, "|", kLetters, R"(|\p{N}|)", kPunctuation, "|", kSpaces}},
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
