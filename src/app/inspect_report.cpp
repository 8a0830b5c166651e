#include "app/inspect_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "app/terminal_text.h"
#include "gguf/value.h"

namespace plumb {
namespace {

constexpr int64_t kColumns = 80;
constexpr int64_t kMaxNameColumns = 40;

template <class... T>
void say(std::string& out, fmt::format_string<T...> format, T&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<T>(args)...);
}

std::string type_text(const GgufValue& v) {
  return v.is_array ? fmt::format("{}[{}]", name(v.type), v.count) : name(v.type);
}

// As many elements as fit, then "...".
std::string array_text(const GgufValue& v, int64_t columns) {
  const std::vector<std::string_view> strings =
      v.type == GgufType::string ? strings_of(v, 16) : std::vector<std::string_view>();
  std::string s;
  int64_t width = 0;
  for (int64_t i = 0; i < v.count; ++i) {
    if (i > 0) s += ", ", width += 2;
    if (v.type == GgufType::string && i >= int64_t(strings.size())) return s + "...";
    const std::string element =
        v.type == GgufType::string ? quote(strings[size_t(i)], 40) : element_text(v, i);
    width += display_width(element);
    if (i > 0 && width + (i + 1 < v.count ? 5 : 0) > columns) return s + "...";
    s += element;
  }
  return s;
}

void say_full_array(std::string& out, const GgufValue& v) {
  if (v.type == GgufType::string) {
    int64_t i = 0;
    for (std::string_view s : strings_of(v)) say(out, "{:>10}  {}\n", i++, quote(s));
    return;
  }
  std::string line;
  for (int64_t i = 0; i < v.count; ++i) {
    const std::string element = element_text(v, i);
    if (int64_t(line.size() + element.size()) + 2 > kColumns) {
      say(out, "{}\n", line);
      line.clear();
    }
    line += (line.empty() ? "    " : " ") + element;
  }
  if (!line.empty()) say(out, "{}\n", line);
}

void say_metadata(std::string& out, const Gguf& g, bool full) {
  size_t keys = 0, types = 0;
  for (const GgufValue& v : g.values()) {
    keys = std::max(keys, std::min(v.key.size(), size_t(kMaxNameColumns)));
    types = std::max(types, type_text(v).size());
  }
  say(out, "\nmetadata\n");
  for (const GgufValue& v : g.values()) {
    const std::string head = fmt::format("  {:<{}}  {:<{}}  ", v.key, keys, type_text(v), types);
    const int64_t left = std::max<int64_t>(16, kColumns - int64_t(head.size()));
    if (v.is_array && full) {
      say(out, "  {:<{}}  {}\n", v.key, keys, type_text(v));
      say_full_array(out, v);
    } else if (v.is_array) {
      say(out, "{}{}\n", head, array_text(v, left));
    } else if (v.type == GgufType::string) {
      say(out, "{}{}\n", head, quote(strings_of(v).front(), full ? INT64_MAX : left));
    } else {
      say(out, "{}{}\n", head, element_text(v, 0));
    }
  }
}

std::string scalar_text(const Json& v) {
  if (v.is_null()) return "-";
  return v.text() ? quote(*v.text(), 50) : dump(v, {.ascii = true});
}

void say_tokenizer(std::string& out, const Gguf& g) {
  const Json summary = tokenizer_summary(g);
  if (!summary.object()) return;
  say(out, "\ntokenizer\n");
  for (const auto& [key, value] : *summary.object()) {
    if (!value.object()) say(out, "  {:<20} {}\n", key, scalar_text(value));
  }
  if (const Json* special = summary.find("special")) {
    for (const auto& [key, token] : *special->object()) {
      say(out, "  {:<20} {:<8} {}\n", key, scalar_text(*token.find("id")),
          token.find("text")->is_null() ? "outside the vocabulary" : scalar_text(*token.find("text")));
    }
  }
  if (const Json* flags = summary.find("flags")) {
    for (const auto& [key, value] : *flags->object()) say(out, "  {:<20} {}\n", key, scalar_text(value));
  }
}

void say_tensors(std::string& out, const Gguf& g) {
  size_t names = 4, shapes = 5, formats = 4;
  for (const GgufTensor& t : g.tensors()) {
    names = std::max(names, std::min(t.name.size(), size_t(kMaxNameColumns)));
    shapes = std::max(shapes, shape_text(t).size());
    formats = std::max(formats, std::string_view(info(t.format).name).size());
  }
  const bool split = g.files().size() > 1;
  say(out, "\ntensors\n  {:<{}}  {:<{}}  {:<{}}  {:>12}  {:>11}{}\n", "name", names, "type", formats, "shape",
      shapes, "offset", "bytes", split ? "  part" : "");
  for (const GgufTensor& t : g.tensors()) {
    say(out, "  {:<{}}  {:<{}}  {:<{}}  {:>12}  {:>11}", t.name, names, info(t.format).name, formats,
        shape_text(t), shapes, t.offset, t.bytes);
    if (split) say(out, "  {:>4}", t.file + 1);
    out += '\n';
  }
}

void say_totals(std::string& out, const Gguf& g) {
  say(out, "\ntotals\n  {:<8}  {:>7}  {:>14}  {:>14}  {:>11}\n", "type", "tensors", "elements", "bytes",
      "bits/weight");
  FormatTotal all{.format = Format::F32};
  const auto line = [&out](std::string_view type, const FormatTotal& t) {
    say(out, "  {:<8}  {:>7}  {:>14}  {:>14}  {:>11.4g}\n", type, t.tensors, t.elements, t.bytes,
        t.elements ? t.bits_per_weight() : 0.0);
  };
  for (const FormatTotal& t : totals(g)) {
    line(info(t.format).name, t);
    all.tensors += t.tensors, all.elements += t.elements, all.bytes += t.bytes;
  }
  line("all", all);
}

// The id of the token and its text, null when there is no such token.
Json token(int64_t id, const std::vector<std::string_view>& tokens) {
  Json j;
  j.set("id", id);
  j.set("text", id >= 0 && id < int64_t(tokens.size()) ? Json(tokens[size_t(id)]) : Json());
  return j;
}

}  // namespace

std::vector<FormatTotal> totals(const Gguf& file) {
  std::vector<FormatTotal> all;
  for (const FormatInfo& f : formats()) all.push_back({.format = f.format});
  for (const GgufTensor& t : file.tensors()) {
    FormatTotal& total =
        *std::find_if(all.begin(), all.end(), [&](const FormatTotal& f) { return f.format == t.format; });
    ++total.tensors;
    total.elements += t.elements();
    total.bytes += t.bytes;
  }
  std::erase_if(all, [](const FormatTotal& t) { return t.tensors == 0; });
  return all;
}

Json tokenizer_summary(const Gguf& file) {
  constexpr std::string_view prefix = "tokenizer.ggml.", id_suffix = "_token_id";
  const GgufValue* list = file.find("tokenizer.ggml.tokens");
  std::vector<std::string_view> tokens;
  if (list && list->type == GgufType::string) tokens = strings_of(*list);
  Json summary, special, flags;
  if (list) summary.set("tokens", list->count);
  for (const GgufValue& v : file.values()) {
    if (v.key == "tokenizer.chat_template" && v.type == GgufType::string && !v.is_array) {
      summary.set("chat_template_bytes", int64_t(strings_of(v).front().size()));
    }
    if (!v.key.starts_with(prefix)) continue;
    const std::string_view key = v.key.substr(prefix.size());
    if (v.is_array) {
      if (key != "tokens") summary.set(key, v.count);
    } else if (v.type == GgufType::string) {
      summary.set(key, strings_of(v).front());
    } else if (v.type == GgufType::boolean) {
      flags.set(key, flag_at(v, 0));
    } else if (key.ends_with(id_suffix) && is_integer(v.type)) {
      special.set(key.substr(0, key.size() - id_suffix.size()), token(integer_at(v, 0).value_or(-1), tokens));
    }
  }
  if (special.object()) summary.set("special", std::move(special));
  if (flags.object()) summary.set("flags", std::move(flags));
  return summary;
}

std::string shape_text(const GgufTensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.ne, tensor.ne + tensor.n_dims, ", "));
}

std::string inspect_text(const Gguf& file, bool full) {
  std::string out;
  for (const std::string& path : file.files()) {
    const std::string shown = quote(path);
    say(out, "{}\n", std::string_view(shown).substr(1, shown.size() - 2));
  }
  say(out, "  GGUF version {}, {} keys, {} tensors, alignment {}, {} bytes ({})\n", file.version(),
      file.values().size(), file.tensors().size(), file.alignment(), file.file_bytes(),
      readable_bytes(file.file_bytes()));
  say_metadata(out, file, full);
  say_tokenizer(out, file);
  say_tensors(out, file);
  say_totals(out, file);
  return out;
}

}  // namespace plumb
