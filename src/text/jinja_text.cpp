#include "text/jinja_text.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/utf8.h"

namespace plumb::jinja {
namespace {

bool in_set(uint32_t code, std::string_view set) {
  if (set.empty()) return is_space(code);
  for (size_t i = 0; i < set.size();) {
    const Utf8Step step = utf8_step(set, i);
    if (step.code == code) return true;
    i += size_t(step.length);
  }
  return false;
}

size_t last_character(std::string_view s) {
  size_t i = s.size() - 1;
  while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xC0) == 0x80) --i;
  return i;
}

utf8proc_category_t category(uint32_t c) { return utf8proc_category(int32_t(c)); }
bool is_alpha(uint32_t c) {
  return category(c) >= UTF8PROC_CATEGORY_LU && category(c) <= UTF8PROC_CATEGORY_LO;
}
uint32_t up(uint32_t c) { return uint32_t(utf8proc_toupper(int32_t(c))); }
uint32_t down(uint32_t c) { return uint32_t(utf8proc_tolower(int32_t(c))); }

void append_upper(std::string& out, uint32_t c) {
  if (c == 0xDF) {
    out += "SS";
  } else {
    append_utf8(out, up(c));
  }
}

template <class F>
std::string each(std::string_view s, F f) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const Utf8Step step = utf8_step(s, i);
    f(out, step.code);
    i += size_t(step.length);
  }
  return out;
}

std::vector<std::string> split_space(std::string_view s, int64_t at_most) {
  std::vector<std::string> out;
  s = strip(s, {}, true, false);
  while (!s.empty()) {
    if (at_most >= 0 && int64_t(out.size()) == at_most) {
      out.emplace_back(strip(s, {}, false, true));
      break;
    }
    size_t i = 0;
    while (i < s.size() && !is_space(utf8_step(s, i).code)) i += size_t(utf8_step(s, i).length);
    out.emplace_back(s.substr(0, i));
    s = strip(s.substr(i), {}, true, false);
  }
  return out;
}

}  // namespace

bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::string_view strip(std::string_view s, std::string_view set, bool left, bool right) {
  while (left && !s.empty()) {
    const Utf8Step step = utf8_step(s, 0);
    if (!in_set(step.code, set)) break;
    s.remove_prefix(size_t(step.length));
  }
  while (right && !s.empty()) {
    const size_t last = last_character(s);
    if (!in_set(utf8_step(s, last).code, set)) break;
    s = s.substr(0, last);
  }
  return s;
}

std::string upper(std::string_view s) { return each(s, append_upper); }
std::string lower(std::string_view s) {
  return each(s, [](std::string& out, uint32_t c) { append_utf8(out, down(c)); });
}

std::string title(std::string_view s) {
  bool inside = false;
  return each(s, [&](std::string& out, uint32_t c) {
    if (inside) {
      append_utf8(out, down(c));
    } else {
      append_upper(out, c);
    }
    inside = is_alpha(c);
  });
}

std::string capitalize(std::string_view s) {
  bool first = true;
  return each(s, [&](std::string& out, uint32_t c) {
    if (first) {
      append_upper(out, c);
    } else {
      append_utf8(out, down(c));
    }
    first = false;
  });
}

std::vector<std::string> split(std::string_view s, const std::string* separator, int64_t at_most) {
  if (!separator) return split_space(s, at_most);
  std::vector<std::string> out;
  size_t from = 0;
  while (at_most < 0 || int64_t(out.size()) < at_most) {
    const size_t i = s.find(*separator, from);
    if (i == s.npos) break;
    out.emplace_back(s.substr(from, i - from));
    from = i + separator->size();
  }
  out.emplace_back(s.substr(from));
  return out;
}

std::vector<std::string> rsplit(std::string_view s, const std::string* separator, int64_t at_most) {
  if (at_most < 0) return split(s, separator, -1);
  std::vector<std::string> out;
  if (!separator) s = strip(s, {}, false, true);
  while (int64_t(out.size()) < at_most && !s.empty()) {
    if (separator) {
      const size_t i = s.rfind(*separator);
      if (i == s.npos) break;
      out.emplace_back(s.substr(i + separator->size()));
      s = s.substr(0, i);
      if (s.empty()) break;
    } else {
      size_t i = s.size();
      while (i > 0 && !is_space(utf8_step(s, last_character(s.substr(0, i))).code))
        i = last_character(s.substr(0, i));
      out.emplace_back(s.substr(i));
      s = strip(s.substr(0, i), {}, false, true);
    }
  }
  if (separator || !s.empty()) out.emplace_back(separator ? s : strip(s, {}, true, true));
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string> splitlines(std::string_view s, bool keep_ends) {
  std::vector<std::string> out;
  size_t begin = 0;
  for (size_t i = 0; i < s.size();) {
    const Utf8Step step = utf8_step(s, i);
    const size_t at = i;
    i += size_t(step.length);
    const uint32_t c = step.code;
    if (!((c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029)) continue;
    if (c == '\r' && i < s.size() && s[i] == '\n') ++i;
    out.emplace_back(s.substr(begin, (keep_ends ? i : at) - begin));
    begin = i;
  }
  if (begin < s.size()) out.emplace_back(s.substr(begin));
  return out;
}

std::string replace(std::string_view s, std::string_view from, std::string_view to, int64_t at_most) {
  std::string out;
  size_t i = 0;
  if (from.empty()) {
    for (; at_most != 0 && i <= s.size(); at_most -= at_most > 0) {
      out += to;
      if (i == s.size()) return out;
      const auto n = size_t(utf8_step(s, i).length);
      out += s.substr(i, n);
      i += n;
    }
    return out.append(s.substr(i));
  }
  for (size_t next; at_most != 0 && (next = s.find(from, i)) != s.npos; at_most -= at_most > 0) {
    out.append(s.substr(i, next - i)).append(to);
    i = next + from.size();
  }
  return out.append(s.substr(i));
}

std::string escape_html(std::string_view s) {
  std::string out;
  for (char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string unescape(std::string_view s) {
  static constexpr std::string_view kNames = "abfnrtv\\'\"", kCodes = "\a\b\f\n\r\t\v\\'\"";
  std::string out;
  const auto number = [&](size_t& i, size_t most, uint32_t base) {
    uint32_t code = 0;
    for (size_t n = 0; n < most && i < s.size(); ++n, ++i) {
      const char c = s[i];
      const uint32_t digit = c >= '0' && c <= '9'                 ? uint32_t(c - '0')
                             : (c | 32) >= 'a' && (c | 32) <= 'f' ? uint32_t((c | 32) - 'a' + 10)
                                                                  : 99;
      if (digit >= base) break;
      code = code * base + digit;
    }
    append_utf8(out, code < 0x110000 && (code < 0xD800 || code > 0xDFFF) ? code : kReplacementCharacter);
  };
  for (size_t i = 0; i < s.size();) {
    if (s[i] != '\\' || i + 1 == s.size()) {
      out += s[i++];
      continue;
    }
    const char c = s[i + 1];
    i += 2;
    if (const size_t known = kNames.find(c); known != kNames.npos) {
      out += kCodes[known];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      number(i, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16);
    } else if (c >= '0' && c <= '7') {
      --i;
      number(i, 3, 8);
    } else if (c != '\n') {
      out += '\\';
      out += c;
    }
  }
  return out;
}

size_t byte_of(std::string_view s, int64_t index) {
  size_t i = 0;
  for (; index > 0 && i < s.size(); --index) i += size_t(utf8_step(s, i).length);
  return i;
}

int64_t characters(std::string_view s) {
  int64_t n = 0;
  for (size_t i = 0; i < s.size(); ++n) i += size_t(utf8_step(s, i).length);
  return n;
}

bool all_are(std::string_view s, CharacterClass wanted) {
  bool any_cased = false;
  for (size_t i = 0; i < s.size();) {
    const Utf8Step step = utf8_step(s, i);
    i += size_t(step.length);
    const uint32_t c = step.code;
    const bool digit = category(c) == UTF8PROC_CATEGORY_ND;
    const bool number = digit || category(c) == UTF8PROC_CATEGORY_NL || category(c) == UTF8PROC_CATEGORY_NO;
    any_cased |= up(c) != c || down(c) != c;
    if (wanted == CharacterClass::alpha && !is_alpha(c)) return false;
    if (wanted == CharacterClass::digit && !digit) return false;
    if (wanted == CharacterClass::alnum && !is_alpha(c) && !number) return false;
    if (wanted == CharacterClass::space && !is_space(c)) return false;
    if (wanted == CharacterClass::upper && up(c) != c) return false;
    if (wanted == CharacterClass::lower && down(c) != c) return false;
  }
  return wanted == CharacterClass::upper || wanted == CharacterClass::lower ? any_cased : !s.empty();
}

}  // namespace plumb::jinja
