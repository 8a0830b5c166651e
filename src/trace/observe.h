// What foreign records say, as single numbers: each with what it is of, and how exactly it was printed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "program/program.h"
#include "trace/trace.h"

namespace plumb::trace {

/// One run of the foreign engine.
struct ForeignRun {
  const Trace* trace = nullptr;
  std::vector<int> tokens;  // all that were fed; those from `prompt` on are its own, greedily
  int64_t prompt = 0;
  std::vector<int> calls;  // tokens of each call
};

/// What a number is of: an element by its index in the rows of its group, in canonical order, or a statistic
/// of all of them.
struct Quantity {
  enum class Kind : uint8_t { element, rms, mean, min, max };
  Kind kind = Kind::element;
  int64_t index = 0;
};

/// Numbers of the same rows of one value, judged together.
struct Observed {
  std::string value;
  int run = 0, layer = -1;        // -1: of no layer
  int64_t first = 0, tokens = 0;  // positions
  bool whole_call = false;        // all rows of call `call`, however many a hypothesis feeds
  bool last = false;              // the last row of that call
  int call = 0;
  std::vector<Quantity> what = {};
  std::vector<Number> numbers = {};  // as many; elements beyond them serve the scale of rounding only
  double weight = 1;                 // of each number: neighbouring layers tell nearly the same
  bool top = false;                  // the elements are the largest of their row, in order
  bool shifted = false;              // elements are known up to a constant: their mean is taken off
  std::vector<int> chosen = {};      // of logits: the id that the engine took after each row, greedily
  std::vector<int> near = {};        // groups like it, of its layer and its neighbours: one scale of rounding
};

struct Evidence {
  std::vector<ForeignRun> runs;
  std::vector<Observed> groups;  // in the order of the Program, run by run
  int64_t numbers() const;
  bool has_ids() const;  // generated ones
};

/// Values of a trace that are represented otherwise, by the name of the difference (docs/trace-format.md,
/// Gauges): of those only statistics count that do not depend on it.
using Represented = std::map<std::string, std::string>;

/// Adds a trace's run and all of it that names a value of the Program. Throws Error "trace.tokens" if it has
/// no token ids.
void observe(const Trace& trace, const Program& program, const Represented& represented, Evidence& evidence);

/// Adds what is only computed to measure rounding: neighbouring layers, further elements. Sets the weights.
void complete(const Program& program, Evidence& evidence);

bool has_elements(const Observed& group);

/// Whether its scale of rounding is known from its own few statistics alone.
bool is_alone(const Observed& group);

/// What follows the layer in a value's name, or all of it.
std::string_view kind_of(std::string_view value);

}  // namespace plumb::trace
