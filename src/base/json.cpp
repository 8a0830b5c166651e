#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace plumb {
namespace {

// Walks the text and leaves its position where the handler below can see it: SAX events carry none.
struct Counting {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** seen;

  reference operator*() const { return *at; }
  Counting& operator++() {
    *seen = ++at;
    return *this;
  }
  Counting operator++(int) {
    Counting before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Counting& other) const { return at == other.at; }
  bool operator!=(const Counting& other) const { return at != other.at; }
};

// "~" and "/" of a key as RFC 6901 writes them.
std::string pointer_part(std::string_view key) {
  std::string s = "/";
  for (char c : key) s += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return s;
}

// Builds the value, with an explicit stack of open arrays and objects.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string_view text, const std::string& name, const JsonLimits& limits)
      : begin_(text.data()), seen(text.data()), name_(name), limits_(limits) {}

  bool null() override { return add(Json()); }
  bool boolean(bool v) override { return add(Json(v)); }
  bool number_integer(int64_t v) override { return add(Json(v)); }
  bool number_unsigned(uint64_t v) override { return add(Json(v)); }
  bool number_float(double v, const std::string& s) override {
    if (s.size() > size_t(limits_.number_bytes)) {
      fail("json.number", fmt::format("numbers of at most {} characters", limits_.number_bytes),
           fmt::format("{} characters", s.size()));
    }
    return add(Json(v));
  }
  bool string(std::string& v) override { return add(Json(std::move(v))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }  // not in JSON text

  bool start_object(size_t) override { return open(Json(Json::Object())); }
  bool start_array(size_t) override { return open(Json(Json::Array())); }
  bool end_array() override { return close(); }
  bool key(std::string& k) override {
    count();
    stack_.back().key = std::move(k);
    return true;
  }
  bool end_object() override {
    check_duplicates();
    return close();
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    std::string_view found = e.what();
    const size_t reason = found.find(": ");
    if (reason != std::string_view::npos) found.remove_prefix(reason + 2);
    const bool range = e.id == 406;  // a number that no double can hold
    fail(range ? "json.number" : "json.syntax",
         range ? "numbers within the range of a double" : "strict JSON in UTF-8", printable(found, 200),
         int64_t(position) - 1);
  }

  Json result;

 private:
  struct Open {
    Json value;
    std::string key;  // of the member being read
  };

  void count() {
    if (++nodes_ > limits_.nodes) {
      fail("json.nodes", fmt::format("at most {} values and keys", limits_.nodes), "more");
    }
  }

  bool add(Json v) {
    count();
    attach(std::move(v));
    return true;
  }

  void attach(Json v) {
    if (stack_.empty()) {
      result = std::move(v);
    } else if (stack_.back().value.array()) {
      stack_.back().value.push(std::move(v));
    } else {
      stack_.back().value.set(stack_.back().key, std::move(v));
    }
  }

  bool open(Json v) {
    count();
    if (stack_.size() >= size_t(limits_.depth)) {
      fail("json.depth", fmt::format("at most {} nested arrays and objects", limits_.depth), "more");
    }
    stack_.push_back({std::move(v), {}});
    return true;
  }

  bool close() {
    Json v = std::move(stack_.back().value);
    stack_.pop_back();
    attach(std::move(v));
    return true;
  }

  void check_duplicates() {
    const Json::Object& members = *stack_.back().value.object();
    std::vector<const std::string*> keys;
    keys.reserve(members.size());
    for (const auto& [key, value] : members) keys.push_back(&key);
    std::sort(keys.begin(), keys.end(), [](const std::string* a, const std::string* b) { return *a < *b; });
    const auto twice = std::adjacent_find(
        keys.begin(), keys.end(), [](const std::string* a, const std::string* b) { return *a == *b; });
    if (twice == keys.end()) return;
    stack_.back().key = **twice;
    fail("json.duplicate_key", "each key once in an object", '"' + printable(**twice) + "\" again");
  }

  [[noreturn]] void fail(const char* code, std::string expected, std::string found,
                         int64_t offset = -1) const {
    std::string pointer;
    for (const Open& o : stack_) {
      pointer += o.value.array() ? fmt::format("/{}", o.value.array()->size()) : pointer_part(o.key);
    }
    throw Error({.code = code,
                 .expected = std::move(expected),
                 .found = std::move(found),
                 .where = {.file = name_, .offset = offset >= 0 ? offset : seen - begin_, .key = pointer}});
  }

  const char* begin_;

 public:
  const char* seen;

 private:
  const std::string& name_;
  const JsonLimits& limits_;
  int64_t nodes_ = 0;
  std::vector<Open> stack_;
};

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  void write(const Json& v, int level) {
    std::visit([&](const auto& x) { write_kind(x, level); }, v.value());
  }

  std::string out;

 private:
  void write_kind(std::monostate, int) { out += "null"; }
  void write_kind(bool v, int) { out += v ? "true" : "false"; }
  void write_kind(int64_t v, int) { fmt::format_to(std::back_inserter(out), "{}", v); }
  void write_kind(uint64_t v, int) { fmt::format_to(std::back_inserter(out), "{}", v); }
  void write_kind(float v, int) { write_real(v); }
  void write_kind(double v, int) { write_real(v); }
  void write_kind(const std::string& v, int) {
    out += nlohmann::json(v).dump(-1, ' ', style_.ascii, nlohmann::json::error_handler_t::replace);
  }
  void write_kind(const Json::Array& v, int level) {
    const bool flat = std::none_of(v.begin(), v.end(), [](const Json& e) { return e.array() || e.object(); });
    out += '[';
    for (size_t i = 0; i < v.size(); ++i) {
      if (i) out += flat && style_.indent ? ", " : ",";
      if (!flat) new_line(level + 1);
      write(v[i], level + 1);
    }
    if (!flat) new_line(level);
    out += ']';
  }
  void write_kind(const Json::Object& v, int level) {
    out += '{';
    for (size_t i = 0; i < v.size(); ++i) {
      if (i) out += ',';
      new_line(level + 1);
      write_kind(v[i].first, level);
      out += style_.indent ? ": " : ":";
      write(v[i].second, level + 1);
    }
    if (!v.empty()) new_line(level);
    out += '}';
  }

  template <class T>
  void write_real(T v) {
    if (!std::isfinite(v)) {
      out += "null";
      return;
    }
    const std::string digits = fmt::format("{}", v);  // the fewest that give v again
    out += digits;
    if (digits.find_first_of(".e") == std::string::npos) out += ".0";  // so that it stays a real
  }

  void new_line(int level) {
    if (!style_.indent) return;
    out += '\n';
    out.append(size_t(level * style_.indent), ' ');
  }

  const JsonStyle& style_;
};

}  // namespace

std::optional<double> Json::number() const {
  return std::visit(
      [](const auto& v) -> std::optional<double> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) return double(v);
        return std::nullopt;
      },
      value_);
}

const Json* Json::find(std::string_view key) const {
  if (!object()) return nullptr;
  for (const auto& [k, v] : *object()) {
    if (k == key) return &v;
  }
  return nullptr;
}

void Json::push(Json element) {
  if (is_null()) value_ = Array();
  std::get<Array>(value_).push_back(std::move(element));
}

void Json::set(std::string_view key, Json member) {
  if (is_null()) value_ = Object();
  std::get<Object>(value_).emplace_back(std::string(key), std::move(member));
}

void Json::replace(std::string_view key, Json member) {
  if (Object* object = std::get_if<Object>(&value_)) {
    for (auto& [name, value] : *object) {
      if (name == key) {
        value = std::move(member);
        return;
      }
    }
  }
  set(key, std::move(member));
}

Json parse_json(std::string_view text, const std::string& name, const JsonLimits& limits) {
  if (text.size() > size_t(limits.bytes)) {
    throw Error({.code = "json.too_large",
                 .expected = fmt::format("at most {} bytes", limits.bytes),
                 .found = fmt::format("{} bytes", text.size()),
                 .where = {.file = name, .offset = 0}});
  }
  Builder builder(text, name, limits);
  const Counting begin{text.data(), &builder.seen}, end{text.data() + text.size(), &builder.seen};
  const bool done = nlohmann::json::sax_parse(begin, end, &builder);
  PLUMB_CHECK(done);  // every refusal is thrown
  return std::move(builder.result);
}

std::string dump(const Json& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace plumb
