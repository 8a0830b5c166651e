// The routes that measure: /plumb/trace, compare and hidden. Who measures stands above this room.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace plumb::server {

struct Call;

struct TraceOrder {
  std::vector<int> tokens = {};
  std::vector<std::string> values = {};  // patterns of names; empty: all
  std::optional<std::vector<int>> layers = {};
  int steps = 0;
  std::string level = "stats", arith = "fast";
};

enum class HiddenPooling { none, mean, last };

struct HiddenOrder {
  std::vector<std::vector<int>> texts = {};
  std::vector<std::string> values = {};
  HiddenPooling pooling = HiddenPooling::none;
};

struct HiddenRows {
  std::string value = {};
  int64_t size = 0;                 // of a row
  std::vector<float> numbers = {};  // [rows, size]
};
using Hidden = std::vector<std::vector<HiddenRows>>;  // by text, by value

/// Measures the served model. Each call looks at once at what is asked, throws Error "request.*" with its
/// JSON pointer, and returns the work; that runs on one thread (aside.h) and throws Error "run.cancelled"
/// once `gone` is set.
class Instrument {
 public:
  template <class T>
  using Work = std::function<T(std::atomic<bool>& gone)>;

  virtual ~Instrument() = default;
  /// The text of an evidence file (docs/trace-format.md).
  virtual Work<std::string> trace(const TraceOrder& order) = 0;
  /// What `plumb diff TRACE -m MODEL --json` prints.
  virtual Work<std::string> compare(const Json& trace) = 0;
  virtual Work<Hidden> hidden(HiddenOrder order) = 0;
};

void handle_trace(Call& call);
void handle_compare(Call& call);
void handle_hidden(Call& call);

}  // namespace plumb::server
