// K: what becomes of text. L: how a token is chosen.
#include <algorithm>

#include "trace/edits.h"

namespace plumb::trace {
namespace {

std::string no_tokenizer(const Variant& v) {
  return v.file->find("tokenizer.ggml.tokens") ? "" : "the file has no tokenizer";
}

Edit text(std::function<void(TextOptions&)> change) {
  return where(no_tokenizer, [=](Variant& v, double) -> std::string {
    change(v.text);
    return {};
  });
}

template <class T>
Edit key(std::string name, T value) {
  return where(no_tokenizer, [=](Variant& v, double) -> std::string {
    v.metadata.push_back({name, [=](GgufWriter& w) { w.set(name, value); }});
    return {};
  });
}

Edit with_tokenizer(std::function<std::string(Variant&, const Tokenizer&)> edit) {
  return where(no_tokenizer, [=](Variant& v, double) { return edit(v, Tokenizer::load(*v.file)); });
}

const char* const kAddBos = "tokenizer.ggml.add_bos_token";

std::string bos_missing(Variant& v, const Tokenizer& t) {
  return t.adds_bos() ? key(kAddBos, false)(v, 0) : "the model asks for no BOS";
}
std::string bos_added(Variant& v, const Tokenizer& t) {
  if (t.bos() < 0) return "the model has no BOS";
  return t.adds_bos() ? "the model asks for BOS" : key(kAddBos, true)(v, 0);
}
std::string bos_twice(Variant& v, const Tokenizer& t) {
  if (t.bos() < 0 || !t.adds_bos()) return "the model asks for no BOS";
  v.text.extra_bos = 1;
  return {};
}
std::string eos_appended(Variant& v, const Tokenizer& t) {
  if (t.eos() < 0) return "the model has no EOS";
  v.text.appends_eos = true;
  return {};
}
std::string space_prefix(Variant& v, const Tokenizer& t) {
  const char* name = "tokenizer.ggml.add_space_prefix";
  const bool now = v.file->flag(name).value_or(t.model() == "llama");
  return key(name, !now)(v, 0);
}
std::string pre_tokenizer(Variant& v, const Tokenizer& t) {
  if (t.pre().empty()) return "the model has no pre-tokenizer";
  return key("tokenizer.ggml.pre", std::string_view(t.pre() == "gpt-2" ? "llama-bpe" : "gpt-2"))(v, 0);
}
// The texts of normal tokens, each at the next one's id.
std::string other_vocabulary(Variant& v, const Tokenizer& t) {
  const char* name = "tokenizer.ggml.tokens";
  std::vector<std::string_view> moved = v.file->texts(name).value_or(std::vector<std::string_view>());
  std::vector<size_t> normal;
  for (size_t i = 0; i < moved.size(); ++i) {
    if (t.type(int(i)) == TokenType::normal) normal.push_back(i);
  }
  if (normal.size() < 2) return "the vocabulary is too small";
  for (size_t i = 0; i + 1 < normal.size(); ++i) std::swap(moved[normal[i]], moved[normal[i + 1]]);
  v.metadata.push_back(
      {name, [=](GgufWriter& w) { w.set_array(name, std::span<const std::string_view>(moved)); }});
  return {};
}
std::string merges_ignored(Variant& v, const Tokenizer& t) {
  if (!t.pre().empty()) {
    const char* name = "tokenizer.ggml.merges";
    const auto merges = v.file->texts(name);
    if (!merges || merges->empty()) return "the model has no merges";
    v.metadata.push_back({name, [=, last = merges->back()](GgufWriter& w) {
                            w.set_array(name, std::span<const std::string_view>(&last, 1));
                          }});
    return {};
  }
  v.metadata.push_back({"tokenizer.ggml.scores", [n = size_t(t.size())](GgufWriter& w) {
                          const std::vector<float> equal(n, 0.0f);
                          w.set_array("tokenizer.ggml.scores", std::span<const float>(equal));
                        }});
  return {};
}
std::string wrong_eos(Variant& v, const Tokenizer& t) {
  const int other = t.unknown() >= 0 ? t.unknown() : 0;
  if (t.eos() < 0 || t.eos() == other) return "the model has no other id";
  return key("tokenizer.ggml.eos_token_id", uint32_t(other))(v, 0);
}

Edit sampler(std::function<void(SamplerOptions&)> change) {
  return [=](Variant& v, double) -> std::string {
    v.sampler = change;
    return {};
  };
}

}  // namespace

void add_text_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_text.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
