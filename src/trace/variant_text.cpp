// What a Variant's engine makes of text: the tokenizer read from changed metadata, then wrong habits with
// ids.
#include <algorithm>

#include "text/tokenizer.h"
#include "trace/variant.h"

namespace plumb::trace {

std::vector<uint8_t> changed_metadata(const Variant& variant) {
  GgufWriter w(variant.file->version());
  for (const GgufValue& v : variant.file->values()) {
    const bool changed = std::any_of(variant.metadata.begin(), variant.metadata.end(),
                                     [&](const MetadataEdit& e) { return e.key == v.key; });
    if (!changed && !v.key.starts_with("split.")) w.set(v);
  }
  for (const MetadataEdit& e : variant.metadata) {
    if (e.set) e.set(w);
  }
  return w.bytes();
}

std::vector<int> encode_text(const Variant& variant, const std::string& text, EncodeOptions options) {
  const TextOptions& o = variant.text;
  const std::vector<uint8_t> bytes = changed_metadata(variant);
  const Gguf changed = Gguf::parse(bytes, variant.file->path());
  const Tokenizer tokenizer = Tokenizer::load(changed);
  std::string input = text;
  if (o.newline_is_space) {
    for (char& c : input) c = c == '\n' || c == '\t' ? ' ' : c;
  }
  options.parse_special = options.parse_special != o.flips_special;
  std::vector<int> ids = tokenizer.encode(input, options);
  const auto control = [&](int id) {
    return tokenizer.type(id) == TokenType::control && id != tokenizer.bos();
  };
  if (o.drops_turn) {  // what templates write between the end of a turn and the next, a line break, stays
    const auto end =
        std::find_if(ids.rbegin(), ids.rend(), [&](int id) { return tokenizer.is_end_of_generation(id); });
    const auto next =
        std::find_if(end.base(), ids.end(), [&](int id) { return tokenizer.type(id) == TokenType::control; });
    if (end != ids.rend()) ids.erase(next != ids.end() ? next : end.base(), ids.end());
  }
  if (o.drops_control) ids.erase(std::remove_if(ids.begin(), ids.end(), control), ids.end());
  if (o.drops_last && ids.size() > 1) ids.pop_back();
  if (tokenizer.bos() >= 0) ids.insert(ids.begin(), size_t(o.extra_bos), tokenizer.bos());
  if (o.appends_eos && tokenizer.eos() >= 0) ids.push_back(tokenizer.eos());
  return ids;
}

}  // namespace plumb::trace
