// The head of an HTTP/1 request (RFC 9112), strictly: requests smuggled through differences between two
// readers begin with a lenient one.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "server/http.h"

namespace plumb::server {
namespace {

[[noreturn]] void refuse(int status, std::string message) { throw HttpError{status, std::move(message)}; }

bool is_token(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = char(c + 32);
  }
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The lines without their CRLF; the last, empty one is left out.
std::vector<std::string_view> lines_of(std::string_view head) {
  if (!head.ends_with("\r\n\r\n")) refuse(400, "the head does not end");
  head.remove_suffix(2);
  std::vector<std::string_view> lines;
  while (!head.empty()) {
    const size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    for (char c : line) {
      if ((static_cast<unsigned char>(c) < 32 && c != '\t') || c == 127)
        refuse(400, "a control character in the head");
    }
    lines.push_back(line);
    head.remove_prefix(end + 2);
  }
  return lines;
}

void read_request_line(std::string_view line, HttpRequest& r) {
  const size_t a = line.find(' '), b = line.rfind(' ');
  if (a == std::string_view::npos || a == b) refuse(400, "a request line of three words is needed");
  const std::string_view method = line.substr(0, a), target = line.substr(a + 1, b - a - 1),
                         version = line.substr(b + 1);
  if (method.empty() || !std::all_of(method.begin(), method.end(), is_token)) refuse(400, "no method");
  if (version != "HTTP/1.1" && version != "HTTP/1.0") refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken");
  if (int64_t(target.size()) > kMaxUriBytes)
    refuse(414, fmt::format("a target of over {} bytes", kMaxUriBytes));
  if (target.empty() || target[0] != '/' || target.find(' ') != std::string_view::npos)
    refuse(400, "the target must be a path");
  r.method = method, r.minor_version = version.back() - '0';
  const size_t query = target.find('?');
  r.path = target.substr(0, query);
  if (query != std::string_view::npos) r.query = target.substr(query + 1);
}

void read_field(std::string_view line, HttpRequest& r) {
  if (line[0] == ' ' || line[0] == '\t') refuse(400, "a folded header line");
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) refuse(400, "a header line without a name");
  const std::string_view name = line.substr(0, colon);
  if (!std::all_of(name.begin(), name.end(), is_token)) refuse(400, "a header name that is no token");
  r.headers.push_back({lower(name), std::string(trimmed(line.substr(colon + 1)))});
}

int count_of(const HttpRequest& r, std::string_view name) {
  return int(
      std::count_if(r.headers.begin(), r.headers.end(), [&](const Header& h) { return h.name == name; }));
}

void read_framing(HttpRequest& r) {
  for (const char* once : {"host", "content-length", "transfer-encoding", "content-type", "authorization",
                           "x-api-key", "origin", "expect"}) {
    if (count_of(r, once) > 1) refuse(400, fmt::format("{} comes twice", once));
  }
  if (!r.header("host") && r.minor_version == 1) refuse(400, "no Host");
  const std::string* length = r.header("content-length");
  const std::string* coding = r.header("transfer-encoding");
  if (length && coding) refuse(400, "both Content-Length and Transfer-Encoding");
  if (coding && r.minor_version == 0) refuse(400, "Transfer-Encoding in HTTP/1.0");
  if (coding && lower(*coding) != "chunked") refuse(501, "a Transfer-Encoding other than chunked");
  r.chunked = coding != nullptr;
  if (length) {
    const char* end = length->data() + length->size();
    const auto [at, error] = std::from_chars(length->data(), end, r.content_length);
    if (error != std::errc() || at != end || (*length)[0] == '-') {
      const bool digits =
          std::all_of(length->begin(), length->end(), [](char c) { return c >= '0' && c <= '9'; });
      refuse(digits && !length->empty() ? 413 : 400, "a Content-Length that is no length");
    }
  }
  if (r.content_length > kMaxBodyBytes) refuse(413, fmt::format("a body of over {} bytes", kMaxBodyBytes));
  if (r.header("content-encoding")) refuse(415, "a compressed body");
  if (const std::string* expect = r.header("expect")) {
    if (lower(*expect) != "100-continue") refuse(417, "an expectation other than 100-continue");
    r.expects_continue = r.minor_version == 1;
  }
  const std::string* connection = r.header("connection");
  const std::string options = connection ? lower(*connection) : "";
  r.keep_alive = r.minor_version == 1 ? options.find("close") == std::string::npos : options == "keep-alive";
}

}  // namespace

const std::string* HttpRequest::header(std::string_view name) const {
  const auto it =
      std::find_if(headers.begin(), headers.end(), [&](const Header& h) { return h.name == name; });
  return it == headers.end() ? nullptr : &it->value;
}

HttpRequest parse_head(std::string_view head) {
  HttpRequest r;
  const std::vector<std::string_view> lines = lines_of(head);
  if (lines.empty()) refuse(400, "an empty head");
  read_request_line(lines[0], r);
  if (int(lines.size()) - 1 > kMaxHeaderFields)
    refuse(431, fmt::format("over {} header lines", kMaxHeaderFields));
  for (size_t i = 1; i < lines.size(); ++i) read_field(lines[i], r);
  read_framing(r);
  return r;
}

const char* status_text(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

std::string head_text(int status, const std::string& type, const std::vector<Header>& headers, int64_t length,
                      bool keep_alive, int minor_version) {
  std::string text = fmt::format("HTTP/1.1 {} {}\r\n", status, status_text(status));
  if (!type.empty()) text += "Content-Type: " + type + "\r\n";
  if (length >= 0) {
    text += fmt::format("Content-Length: {}\r\n", length);
  } else if (minor_version == 1) {
    text += "Transfer-Encoding: chunked\r\n";
  }
  for (const Header& h : headers) text += h.name + ": " + h.value + "\r\n";
  text += "X-Content-Type-Options: nosniff\r\n";
  return text + (keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
}

}  // namespace plumb::server
