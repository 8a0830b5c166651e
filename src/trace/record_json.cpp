// Records and headers to and from JSON: every member checked, whatever the text says.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/limits.h"
#include "trace/trace.h"

namespace plumb::trace {
namespace {

struct Place {
  const std::string& file;
  std::string at;

  [[noreturn]] void refuse(const char* member, std::string expected, std::string found) const {
    throw Error({.code = "trace.record",
                 .expected = std::move(expected),
                 .found = std::move(found),
                 .where = {.file = file, .key = fmt::format("{}/{}", at, member)}});
  }
};

std::string kind(const Json& j) {
  if (j.array()) return "an array";
  if (j.object()) return "an object";
  return printable(dump(j, {.ascii = true}), 40);
}

// Half a unit of the last digit of "-12.0340e2".
std::optional<Number> printed(const std::string& text) {
  if (text == "nan" || text == "-nan") return Number{NAN, 0};
  if (text == "inf" || text == "-inf") return Number{text[0] == '-' ? -INFINITY : INFINITY, 0};
  double value = 0;
  const char* end = text.data() + text.size();
  const char* begin = text.data() + (!text.empty() && text[0] == '+');
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return std::nullopt;
  int exponent = 0;
  const size_t e = text.find_first_of("eE"), point = text.find('.');
  if (e != std::string::npos) exponent = std::atoi(text.c_str() + e + 1);
  const size_t digits = std::min(e, text.size());
  if (point < digits) exponent -= int(digits - point - 1);
  const bool exact = point == std::string::npos && e == std::string::npos;
  return Number{value, exact ? 0 : 0.5 * std::pow(10.0, exponent)};
}

Number number(const Json& j, const char* member, const Place& at) {
  if (const auto v = j.number(); v && std::isfinite(*v)) return {*v, 0};
  if (const std::string* text = j.text()) {
    if (const auto v = printed(*text)) return *v;
  }
  at.refuse(member, "a number, or a string that holds one", kind(j));
}

std::vector<Number> numbers(const Json& record, const char* member, int64_t most, const Place& at) {
  std::vector<Number> out;
  const Json* j = record.find(member);
  if (!j || j->is_null()) return out;
  if (!j->array()) at.refuse(member, "an array of numbers", kind(*j));
  if (int64_t(j->array()->size()) > most)
    at.refuse(member, fmt::format("at most {} numbers", most), std::to_string(j->array()->size()));
  out.reserve(j->array()->size());
  for (const Json& element : *j->array()) out.push_back(number(element, member, at));
  return out;
}

std::string text(const Json& object, const char* member, const Place& at) {
  const Json* j = object.find(member);
  if (!j || j->is_null()) return {};
  if (!j->text() || j->text()->size() > 256) at.refuse(member, "text of at most 256 bytes", kind(*j));
  return *j->text();
}

int64_t integer(const Json& j, const char* member, int64_t least, int64_t most, const Place& at) {
  const auto v = j.integer();
  if (!v || *v < least || *v > most)
    at.refuse(member, fmt::format("an integer from {} to {}", least, most), kind(j));
  return *v;
}

std::vector<int64_t> integers(const Json& object, const char* member, int64_t most, const Place& at) {
  std::vector<int64_t> out;
  const Json* j = object.find(member);
  if (!j || j->is_null()) return out;
  if (!j->array()) at.refuse(member, "an array of integers", kind(*j));
  for (const Json& element : *j->array()) out.push_back(integer(element, member, 0, most, at));
  return out;
}

std::vector<std::string> words(const Json& object, const char* member, const Place& at) {
  std::vector<std::string> out;
  const Json* j = object.find(member);
  if (!j || j->is_null()) return out;
  if (!j->array() || j->array()->size() > 64) at.refuse(member, "an array of words", kind(*j));
  for (const Json& word : *j->array()) {
    if (!word.text() || word.text()->size() > 256) at.refuse(member, "words", kind(word));
    out.push_back(*word.text());
  }
  return out;
}

constexpr int64_t kMaxPosition = int64_t(1) << 31;

void parse_shape(const Json& json, Record& r, const Place& at) {
  const std::vector<int64_t> tokens = integers(json, "tokens", kMaxPosition, at);
  if (tokens.size() == 2) {
    r.first = tokens[0], r.tokens = tokens[1];
  } else if (!tokens.empty()) {
    at.refuse("tokens", "[first position, count]", fmt::format("{} numbers", tokens.size()));
  }
  const std::vector<int64_t> shape = integers(json, "shape", kMaxPosition, at);
  if (shape.empty()) return;
  if (shape.size() != 2 && shape.size() != 3)
    at.refuse("shape", "[tokens, dim] or [tokens, heads, dim]", fmt::format("{} numbers", shape.size()));
  int64_t elements = 1;
  for (int64_t n : shape) {
    if (n < 1 || (elements *= n) > kMaxDataBytes / 2)
      at.refuse("shape", fmt::format("from 1 to {} elements", kMaxDataBytes / 2),
                fmt::format("an axis of {}", n));
  }
  if (tokens.size() == 2 && shape[0] != r.tokens)
    at.refuse("shape", fmt::format("{} tokens", r.tokens), std::to_string(shape[0]));
  r.tokens = shape[0], r.dim = shape.back(), r.heads = shape.size() == 3 ? shape[1] : 0;
}

void parse_stats(const Json& json, Record& r, const Place& at) {
  const Json* stats = json.find("stats");
  if (!stats || stats->is_null()) return;
  if (!stats->object()) at.refuse("stats", "an object", kind(*stats));
  for (int s = 0; s < kStats; ++s) {
    if (const Json* j = stats->find(kStatNames[s]); j && !j->is_null())
      r.stats[Stat(s)] = number(*j, fmt::format("stats/{}", kStatNames[s]).c_str(), at);
  }
}

Json as_json(const Number& n) {
  if (std::isnan(n.value)) return "nan";
  if (std::isinf(n.value)) return n.value < 0 ? "-inf" : "inf";
  const bool minus_zero = n.value == 0 && std::signbit(n.value);
  if (n.value == std::floor(n.value) && std::abs(n.value) < 1e15 && !minus_zero) return int64_t(n.value);
  if (n.value == double(float(n.value))) return float(n.value);
  return n.value;
}

void put(Json& j, const char* member, const std::vector<Number>& numbers) {
  if (numbers.empty()) return;
  Json::Array a;
  a.reserve(numbers.size());
  for (const Number& n : numbers) a.push_back(as_json(n));
  j.set(member, std::move(a));
}

}  // namespace

bool Stats::empty() const {
  for (const auto& s : all) {
    if (s) return false;
  }
  return true;
}

Record parse_record(const Json& json, const std::string& file, const std::string& place) {
  const Place at{file, place};
  if (!json.object()) at.refuse("", "an object", kind(json));
  Record r;
  r.value = text(json, "value", at), r.raw = text(json, "raw", at), r.op = text(json, "op", at);
  if (r.name().empty()) at.refuse("value", "a name in value or raw", "neither");
  if (json.find("type")) r.type = text(json, "type", at);
  if (const Json* step = json.find("step")) r.step = int(integer(*step, "step", 0, INT32_MAX, at));
  r.gauges = words(json, "gauges", at), r.candidates = words(json, "candidates", at);
  r.last = text(json, "scope", at) == "last";
  if (const Json* id = json.find("token_id")) r.token_id = integer(*id, "token_id", 0, kMaxVocabulary, at);
  parse_shape(json, r, at);
  parse_stats(json, r, at);
  const int64_t elements = r.tokens * r.row_size(), most = kMaxLineBytes;
  r.rms_per_token = numbers(json, "rms_per_token", most, at);
  r.rms_per_head = numbers(json, "rms_per_head", most, at);
  r.head8 = numbers(json, "head8", 8, at), r.tail8 = numbers(json, "tail8", 8, at);
  r.sketch = numbers(json, "sketch", kSketch, at);
  if (!r.sketch.empty() && int(r.sketch.size()) != kSketch)
    at.refuse("sketch", fmt::format("{} numbers", kSketch), std::to_string(r.sketch.size()));
  r.data = numbers(json, "data", most, at);
  if (!r.data.empty() && int64_t(r.data.size()) != elements)
    at.refuse("data", fmt::format("{} numbers, as the shape says", elements), std::to_string(r.data.size()));
  if (const Json* samples = json.find("samples"); samples && !samples->is_null()) {
    if (!samples->array()) at.refuse("samples", "an array", kind(*samples));
    for (const Json& s : *samples->array()) {
      if (!s.array() || s.array()->size() != 2) at.refuse("samples", "pairs [index, number]", kind(s));
      r.samples.emplace_back(integer((*s.array())[0], "samples", 0, INT64_MAX, at),
                             number((*s.array())[1], "samples", at));
    }
  }
  r.tensor = text(json, "tensor", at);
  if (const Json* shard = json.find("shard")) r.shard = int(integer(*shard, "shard", 1, kMaxShards, at));
  if ((r.shard > 0) != !r.tensor.empty()) at.refuse("shard", "shard and tensor, or neither", "one of them");
  if (r.full() && (r.dim == 0 || r.tokens == 0)) at.refuse("shape", "the shape of the data", "none");
  return r;
}

Json to_json(const Record& r) {
  Json j;
  if (!r.value.empty()) j.set("value", r.value);
  if (!r.raw.empty()) j.set("raw", r.raw);
  if (!r.op.empty()) j.set("op", r.op);
  j.set("step", r.step);
  if (r.last) j.set("scope", "last");
  if (r.token_id >= 0) j.set("token_id", r.token_id);
  if (!r.candidates.empty()) j.set("candidates", Json::Array(r.candidates.begin(), r.candidates.end()));
  if (r.first >= 0) j.set("tokens", Json::Array{r.first, r.tokens});
  if (r.dim > 0) {
    Json::Array shape = {r.tokens};
    if (r.heads > 0) shape.push_back(r.heads);
    shape.push_back(r.dim);
    j.set("shape", std::move(shape));
  }
  j.set("type", r.type);
  if (!r.stats.empty()) {
    Json stats;
    for (int s = 0; s < kStats; ++s) {
      if (r.stats[Stat(s)]) stats.set(kStatNames[s], as_json(*r.stats[Stat(s)]));
    }
    j.set("stats", std::move(stats));
  }
  put(j, "rms_per_token", r.rms_per_token), put(j, "rms_per_head", r.rms_per_head);
  put(j, "head8", r.head8), put(j, "tail8", r.tail8), put(j, "sketch", r.sketch), put(j, "data", r.data);
  if (r.shard > 0) j.set("shard", r.shard), j.set("tensor", r.tensor);
  return j;
}

Header parse_header(const Json& json, const std::string& file) {
  const Place at{file, ""};
  const Json* version = json.find("plumb_trace");
  if (!version)
    at.refuse("plumb_trace", "the member that marks a trace", json.object() ? "none" : kind(json));
  integer(*version, "plumb_trace", 1, 1, at);
  Header h;
  const auto part = [&](const char* member) { return json.find(member) ? *json.find(member) : Json(); };
  h.engine = text(part("engine"), "name", {file, "/engine"});
  h.model = text(part("model"), "file", {file, "/model"}),
  h.arch = text(part("model"), "arch", {file, "/model"});
  h.arithmetic = text(part("arithmetic"), "name", {file, "/arithmetic"});
  h.level = text(json, "level", at);
  h.gauges = words(json, "gauges", at);
  const Json input = part("input");
  const Place in{file, "/input"};
  for (int64_t id : integers(input, "tokens", kMaxVocabulary, in)) h.tokens.push_back(int(id));
  h.calls = integers(input, "calls", kMaxPosition, in);
  h.prompt = int64_t(h.tokens.size());
  if (const Json* prompt = input.find("prompt")) h.prompt = integer(*prompt, "prompt", 0, h.prompt, in);
  h.json = json;
  return h;
}

}  // namespace plumb::trace
