// The one exception that Plumb throws: what was expected, what was found, where, and what to do about it.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>

namespace plumb {

/// A place in the user's world. Every field is optional; offset is a byte offset into `file`, -1 when
/// unknown.
struct Where {
  std::string file = {};
  int64_t offset = -1;
  std::string key = {};     // metadata key, flag or JSON pointer
  std::string tensor = {};  // tensor or value name
  std::string line = {};    // source line of the model that asked, "models/qwen3.cpp:23"
};

/// Thrown while loading, parsing and planning; never by a kernel. `code` is stable: "room.reason", for
/// example "gguf.truncated"; its first word decides the exit status (app/exit_codes.h).
class Error : public std::exception {
 public:
  struct Parts {
    std::string code;
    std::string expected = {};
    std::string found = {};
    Where where = {};
    std::string remedy = {};
  };

  explicit Error(Parts parts);

  const char* what() const noexcept override { return text_.c_str(); }
  const std::string& code() const { return parts_.code; }
  const std::string& expected() const { return parts_.expected; }
  const std::string& found() const { return parts_.found; }
  const std::string& remedy() const { return parts_.remedy; }
  const Where& where() const { return parts_.where; }

 private:
  Parts parts_;
  std::string text_;
};

/// Shortens foreign text for a message: at most `limit` bytes, control and non-ASCII bytes as \xNN.
std::string printable(std::string_view text, size_t limit = 80);

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}

}  // namespace plumb

// For our own mistakes only: no input can make it fail. Active in every build.
#define PLUMB_CHECK(condition)                                                       \
  do {                                                                               \
    if (!(condition)) ::plumb::detail::check_failed(#condition, __FILE__, __LINE__); \
  } while (false)
