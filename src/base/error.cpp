#include "base/error.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

namespace plumb {
namespace {

// "model.gguf, tensor blk.1.ffn_up.weight, byte 81920"
std::string place(const Where& w) {
  std::string s = w.file;
  auto add = [&s](const std::string& part) {
    if (!s.empty()) s += ", ";
    s += part;
  };
  if (!w.key.empty())
    add((w.key[0] == '-' ? "" : "key ") + printable(w.key));  // a flag, or a key of the file
  if (!w.tensor.empty()) add("tensor " + printable(w.tensor));
  if (w.offset >= 0) add(fmt::format("byte {}", w.offset));
  return s;
}

std::string sentence(const Error::Parts& p) {
  std::string s = place(p.where);
  if (!s.empty()) s += ": ";
  if (!p.expected.empty()) s += "expected " + p.expected;
  if (!p.found.empty()) s += (p.expected.empty() ? "" : ", found ") + p.found;
  if (!p.where.line.empty()) s += " (" + p.where.line + ")";
  s += " [" + p.code + "]";
  if (!p.remedy.empty()) s += "; " + p.remedy;
  return s;
}

}  // namespace

Error::Error(Parts parts) : parts_(std::move(parts)), text_(sentence(parts_)) {}

std::string printable(std::string_view text, size_t limit) {
  std::string s;
  for (char c : text) {
    if (s.size() >= limit) return s + "...";
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      s += c;
    } else {
      s += fmt::format("\\x{:02x}", byte);
    }
  }
  return s;
}

namespace detail {
void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: internal error: %s does not hold; please report this\n", file, line,
               condition);
  std::abort();
}
}  // namespace detail

}  // namespace plumb
