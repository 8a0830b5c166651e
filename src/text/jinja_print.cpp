// Values as text: Python's str() and repr(), and json.dumps() as transformers' filter tojson calls it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"
#include "text/jinja_value.h"

namespace plumb::jinja {
namespace {

constexpr int kMaxPrintDepth = 200;  // namespaces can hold themselves

bool is_printable(uint32_t c) {
  return !(c < 0x20 || (c >= 0x7F && c < 0xA1) || c == 0xAD || c == 0x1680 || (c >= 0x2000 && c <= 0x200F) ||
           (c >= 0x2028 && c <= 0x202F) || (c >= 0x205F && c <= 0x206F) || c == 0x3000 || c == 0xFEFF ||
           (c >= 0xE000 && c <= 0xF8FF) || (c >= 0xF0000));
}

std::string quoted(std::string_view s) {
  const char quote = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < s.size();) {
    const Utf8Step step = utf8_step(s, i);
    const auto n = size_t(step.length);
    if (step.code == uint32_t(quote) || step.code == '\\') {
      out += '\\';
      out += char(step.code);
    } else if (step.code == '\n' || step.code == '\r' || step.code == '\t') {
      out += step.code == '\n' ? "\\n" : step.code == '\r' ? "\\r" : "\\t";
    } else if (is_printable(step.code)) {
      out += s.substr(i, n);
    } else if (step.code < 0x100) {
      out += fmt::format("\\x{:02x}", step.code);
    } else {
      out += step.code < 0x10000 ? fmt::format("\\u{:04x}", step.code) : fmt::format("\\U{:08x}", step.code);
    }
    i += n;
  }
  return out + quote;
}

// Appends to one string and asks the heap for room as it grows.
class Printer {
 public:
  explicit Printer(Heap& heap) : heap_(heap) {}
  std::string out;

 protected:
  void put(std::string_view s) {
    heap_.step(1 + int64_t(s.size()) / 64);
    out += s;
    heap_.room_for(int64_t(out.size()));
  }
  void enter() {
    if (++depth_ > kMaxPrintDepth) throw Fault{"template.limit", "values nested at most 200 deep", "more"};
  }
  void leave() { --depth_; }
  Heap& heap_;

 private:
  int depth_ = 0;
};

class ReprPrinter : public Printer {
 public:
  using Printer::Printer;

  void write(const Value& v) {
    enter();
    if (v.undefined()) put("Undefined");
    if (v.none()) put("None");
    if (v.boolean()) put(*v.boolean() ? "True" : "False");
    if (!v.boolean() && v.exact()) put(fmt::format("{}", v.integer()));
    if (v.real()) put(real_text(*v.real()));
    if (const Text* t = v.text()) put(t->markup ? "Markup(" + quoted(t->bytes) + ")" : quoted(t->bytes));
    if (v.sequence()) write(*v.sequence());
    if (v.dict()) write(*v.dict());
    if (v.space()) write(*v.space());
    if (v.function()) put(fmt::format("<function {}>", v.function()->name));
    if (v.loop()) put("<LoopContext>");
    leave();
  }

 private:
  void write(const Sequence& s) {
    static constexpr const char* kOpen[] = {"[",           "(", "range(", "dict_keys([", "dict_values([",
                                            "dict_items(["};
    static constexpr const char* kClose[] = {"]", ")", ")", "])", "])", "])"};
    if (s.kind == SequenceKind::iterator) return put("<generator object>");
    put(kOpen[size_t(s.kind)]);
    if (s.kind == SequenceKind::range) {
      put(s.items.empty() ? "0, 0"
                          : fmt::format("{}, {}", s.items[0].integer(), s.items.back().integer() + 1));
    } else {
      for (size_t i = 0; i < s.items.size(); ++i) {
        if (i) put(", ");
        write(s.items[i]);
      }
      if (s.kind == SequenceKind::tuple && s.items.size() == 1) put(",");
    }
    put(kClose[size_t(s.kind)]);
  }
  void write(const Dict& d) {
    put("{");
    for (size_t i = 0; i < d.members.size(); ++i) {
      if (i) put(", ");
      write(d.members[i].first);
      put(": ");
      write(d.members[i].second);
    }
    put("}");
  }
  void write(const Namespace& n) {
    put("<Namespace {");
    for (size_t i = 0; i < n.members.size(); ++i) {
      if (i) put(", ");
      put(quoted(n.members[i].first) + ": ");
      write(n.members[i].second);
    }
    put("}>");
  }
};

class JsonPrinter : public Printer {
 public:
  JsonPrinter(Heap& heap, const JsonFormat& format) : Printer(heap), format_(format) {}

  void write(const Value& v, int level) {
    enter();
    if (v.text()) {
      string(v.text()->bytes);
    } else if (v.dict()) {
      object(*v.dict(), level);
    } else if (v.sequence() && v.sequence()->kind <= SequenceKind::tuple) {
      array(v.sequence()->items, level);
    } else {
      put(scalar(v));
    }
    leave();
  }

 private:
  static std::string scalar(const Value& v) {
    if (v.none()) return "null";
    if (v.boolean()) return *v.boolean() ? "true" : "false";
    if (v.exact()) return fmt::format("{}", v.integer());
    if (!v.real()) throw Fault{"template.type", "a value that JSON has", type_name(v)};
    if (std::isnan(*v.real())) return "NaN";
    if (std::isinf(*v.real())) return *v.real() < 0 ? "-Infinity" : "Infinity";
    return real_text(*v.real());
  }

  void escape(uint32_t c) {
    switch (c) {
      case '"':
        return put("\\\"");
      case '\\':
        return put("\\\\");
      case '\n':
        return put("\\n");
      case '\r':
        return put("\\r");
      case '\t':
        return put("\\t");
      case '\f':
        return put("\\f");
      case '\b':
        return put("\\b");
      default:
        break;
    }
    if (c >= 0x10000) {
      put(fmt::format("\\u{:04x}", 0xD800 + ((c - 0x10000) >> 10)));
      c = 0xDC00 + ((c - 0x10000) & 0x3FF);
    }
    put(fmt::format("\\u{:04x}", c));
  }

  void string(std::string_view s) {
    put("\"");
    size_t done = 0;
    for (size_t i = 0; i < s.size();) {
      const Utf8Step step = utf8_step(s, i);
      const bool escaped =
          step.code < 0x20 || step.code == '"' || step.code == '\\' || (format_.ascii && step.code > 0x7E);
      if (escaped) {
        put(s.substr(done, i - done));
        escape(step.code);
        done = i + size_t(step.length);
      }
      i += size_t(step.length);
    }
    put(s.substr(done));
    put("\"");
  }

  void line(int level) {
    if (format_.indent < 0 && format_.indent_text.empty()) return;
    put("\n");
    heap_.room_for(int64_t(level) * std::max(format_.indent, 0));
    for (int i = 0; i < level; ++i) {
      put(format_.indent_text.empty() ? std::string(size_t(format_.indent), ' ') : format_.indent_text);
    }
  }

  void array(const std::vector<Value>& items, int level) {
    put("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i) put(format_.comma);
      line(level + 1);
      write(items[i], level + 1);
    }
    if (!items.empty()) line(level);
    put("]");
  }

  void object(const Dict& d, int level) {
    std::vector<const std::pair<Value, Value>*> members;
    for (const auto& m : d.members) members.push_back(&m);
    if (format_.sorted) {
      std::stable_sort(members.begin(), members.end(),
                       [&](const auto* a, const auto* b) { return compare(heap_, a->first, b->first) < 0; });
    }
    put("{");
    for (size_t i = 0; i < members.size(); ++i) {
      if (i) put(format_.comma);
      line(level + 1);
      const Value& key = members[i]->first;
      string(key.text() ? key.text()->bytes : scalar(key));
      put(format_.colon);
      write(members[i]->second, level + 1);
    }
    if (!members.empty()) line(level);
    put("}");
  }

  const JsonFormat& format_;
};

}  // namespace

std::string real_text(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  const double size = std::fabs(v);
  if (size != 0 && (size < 1e-4 || size >= 1e16)) return fmt::format("{}", v);  // shortest, with an exponent
  std::string s = fmt::format("{}", v);
  if (s.find('e') != s.npos) s = fmt::format("{:.1f}", v);
  return s.find('.') == s.npos ? s + ".0" : s;
}

std::string repr(Heap& heap, const Value& v) {
  ReprPrinter printer(heap);
  printer.write(v);
  return std::move(printer.out);
}

std::string to_text(Heap& heap, const Value& v) {
  if (v.text()) return v.text()->bytes;
  return v.undefined() ? "" : repr(heap, v);
}

std::string to_json(Heap& heap, const Value& v, const JsonFormat& format) {
  JsonPrinter printer(heap, format);
  printer.write(v, 0);
  return std::move(printer.out);
}

}  // namespace plumb::jinja
