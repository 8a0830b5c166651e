// Small GGUF files made for the tests, and a walk over everything that a parsed file offers. Tests and
// fuzzing only.
#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/limits.h"
#include "gguf/gguf.h"
#include "gguf/value.h"
#include "gguf/writer.h"

namespace plumb::testing {

using Bytes = std::vector<uint8_t>;

inline Gguf read(const Bytes& b) { return Gguf::parse(b, "test.gguf"); }

struct Seed {
  std::string name;
  std::vector<Bytes> parts;                    // more than one when the model is split
  std::vector<std::vector<GgufField>> fields;  // of each part
};

inline Bytes counted(int64_t n) {
  Bytes b(static_cast<size_t>(n));
  for (size_t i = 0; i < b.size(); ++i) b[i] = uint8_t(i * 7 + 1);
  return b;
}

inline void add_rows(GgufWriter& w, std::string_view name, Format format, std::vector<int64_t> ne) {
  int64_t rows = 1;
  for (size_t i = 1; i < ne.size(); ++i) rows *= ne[i];
  w.add_tensor(name, format, ne, counted(rows * row_bytes(format, ne.empty() ? 1 : ne[0])));
}

template <GgufNumber T>
void set_both(GgufWriter& w, const std::string& name, std::vector<T> values) {
  w.set("one." + name, values.front());
  w.set_array("many." + name, std::span<const T>(values));
}

inline GgufWriter all_types(uint32_t version) {
  GgufWriter w(version);
  set_both<uint8_t>(w, "u8", {255, 0, 7});
  set_both<int8_t>(w, "i8", {-128, 127, 1});
  set_both<uint16_t>(w, "u16", {65535, 0, 9});
  set_both<int16_t>(w, "i16", {-32768, 32767, 2});
  set_both<uint32_t>(w, "u32", {4294967295u, 0, 3});
  set_both<int32_t>(w, "i32", {std::numeric_limits<int32_t>::min(), 5});
  set_both<uint64_t>(w, "u64", {std::numeric_limits<uint64_t>::max(), 6});
  set_both<int64_t>(w, "i64", {std::numeric_limits<int64_t>::min(), -1});
  set_both<float>(w, "f32", {1.5f, -0.25f});
  set_both<double>(w, "f64", {0.1, 1e300});
  w.set("one.bool", true);
  w.set_array("many.bool", std::vector<bool>{true, false, true});
  w.set("one.string", "text");
  w.set_array("many.string", std::vector<std::string_view>{"", "a", "\xff\x1b[0m"});
  w.set_array("many.none", std::span<const uint32_t>());
  return w;
}

inline GgufWriter all_formats() {
  GgufWriter w;
  for (const FormatInfo& f : formats()) add_rows(w, std::string("row.") + f.name, f.format, {f.block});
  return w;
}

inline GgufWriter small_model() {
  GgufWriter w;
  w.set("general.architecture", "llama");
  w.set("llama.block_count", uint32_t(1));
  w.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  w.set("tokenizer.ggml.model", "llama");
  w.set_array("tokenizer.ggml.tokens", std::vector<std::string_view>{"<unk>", "<s>", "</s>", "a"});
  w.set_array("tokenizer.ggml.scores", std::span<const float>(std::vector<float>{0, 0, 0, -1}));
  w.set_array("tokenizer.ggml.token_type", std::span<const int32_t>(std::vector<int32_t>{2, 3, 3, 1}));
  w.set_alignment(64);
  add_rows(w, "token_embd.weight", Format::Q8_0, {32, 4});
  add_rows(w, "blk.0.attn_norm.weight", Format::F32, {32});
  add_rows(w, "blk.0.cube", Format::F16, {2, 3, 2});
  add_rows(w, "blk.0.four", Format::BF16, {2, 1, 3, 2});
  add_rows(w, "scalar", Format::F32, {});
  return w;
}

inline GgufWriter split_part(uint16_t no, uint16_t count, int32_t tensors) {
  GgufWriter w;
  if (no == 0) w.set("general.name", "split");
  w.set("split.no", no);
  w.set("split.count", count);
  w.set("split.tensors.count", tensors);
  for (int i = 0; i < 2; ++i)
    add_rows(w, "part" + std::to_string(no) + "." + std::to_string(i), Format::F32, {4, 2});
  return w;
}

inline Seed seed(std::string name, const std::vector<GgufWriter>& writers) {
  Seed s{std::move(name), {}, {}};
  for (const GgufWriter& w : writers) {
    s.parts.push_back(w.bytes());
    w.head(&s.fields.emplace_back());
  }
  return s;
}

inline std::vector<Seed> seeds() {
  GgufWriter keys_only;
  keys_only.set("general.architecture", "llama");
  return {seed("minimal", {GgufWriter()}),
          seed("keys only", {keys_only}),
          seed("types", {all_types(3)}),
          seed("types of version 2", {all_types(2)}),
          seed("formats", {all_formats()}),
          seed("model", {small_model()}),
          seed("split", {split_part(0, 3, 6), split_part(1, 3, 6), split_part(2, 3, 6)})};
}

inline Gguf parse(const Seed& s) {
  std::vector<std::span<const uint8_t>> parts(s.parts.begin(), s.parts.end());
  std::vector<std::string> names;
  for (size_t i = 0; i < parts.size(); ++i) names.push_back("part" + std::to_string(i));
  return Gguf::parse(parts, names);
}

/// True when a refusal carries all that it must.
inline bool is_complete(const Error& e) {
  return e.code().starts_with("gguf.") && e.where().offset >= 0 && !e.where().file.empty() &&
         !e.expected().empty() && !e.found().empty();
}

/// Calls every accessor with every key and reads the first and last byte of every tensor. False when a
/// refusal is incomplete or an index contradicts a list.
inline bool walk(const Gguf& g) {
  bool good = g.version() >= 2 && g.alignment() >= 8 && g.file_bytes() > 0 && !g.files().empty();
  int64_t sum = 0;
  const auto attempt = [&](auto&& access) {
    try {
      if (const auto v = access()) sum += int64_t(sizeof(*v));
    } catch (const Error& e) {
      good = good && is_complete(e);
    }
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const GgufValue& v : g.values()) {
    good = good && g.find(v.key) == &v;
    attempt([&] { return g.integer(v.key, INT64_MIN, INT64_MAX); });
    attempt([&] { return g.integer(v.key, 1, 1); });
    attempt([&] { return g.real(v.key, -kInfinity, kInfinity); });
    attempt([&] { return g.flag(v.key); });
    attempt([&] { return g.text(v.key); });
    attempt([&] { return g.texts(v.key); });
    attempt([&] { return g.integers(v.key, INT64_MIN, INT64_MAX); });
    attempt([&] { return g.reals(v.key); });
    attempt([&] { return g.flags(v.key); });
    if (v.type == GgufType::string) {
      for (std::string_view s : strings_of(v)) sum += s.empty() ? 0 : s.front() + s.back();
    } else {
      for (int64_t i : {int64_t(0), v.count - 1})
        sum += i < v.count && i >= 0 ? int64_t(element_text(v, i).size()) : 0;
    }
  }
  for (const GgufTensor& t : g.tensors()) {
    good = good && g.find_tensor(t.name) == &t && t.bytes > 0 && t.file < int(g.files().size());
    sum += t.data[0] + t.data[t.bytes - 1];
  }
  volatile int64_t keep = sum;  // so that no read is dropped
  (void)keep;
  return good;
}

}  // namespace plumb::testing
