// The syntax tree of a chat template and its parser: the grammar of Jinja2 3.1 with its precedences, loop
// controls and transformers' {% generation %}. Inheritance and imports are refused: a chat template stands
// alone.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja_lexer.h"

namespace plumb::jinja {

enum class Op : uint8_t {
  // Expressions: what their children are.
  none,         // an absent part
  text,         // text
  integer,      // number
  real,         // real
  boolean,      // number
  null,         //
  name,         // text
  list,         // elements
  tuple,        // elements
  dict,         // key, value, key, value ...
  attribute,    // object; text
  item,         // object, key
  slice,        // begin, end, step, each possibly Op::none; stands as the key of an item
  call,         // function; arguments in `args`, `named`
  filter,       // value, or Op::none in a filter block; text, `args`, `named`
  test,         // value; text, `args`, `named`
  negate,       // value
  plus,         // value
  invert,       // value: `not`
  both,         // left, right
  either,       // left, right
  binary,       // left, right; text is the operator
  compare,      // first, then operands; `names` are the operators
  concat,       // operands
  conditional,  // condition, value, other value or Op::none
  // Statements.
  data,          // text
  output,        // expression
  body,          // statements
  set,           // target, value
  set_block,     // target, filter or Op::none, body
  branch,        // condition, body, condition, body ..., else body
  loop,          // target, sequence, filter or Op::none, body, else body; number: recursive
  macro,         // body; text; parameters `names`, the last ones' defaults in `args`
  call_block,    // call, body; parameters as of a macro
  filter_block,  // filter, body
  with,          // target, value, target, value ..., body
  leave,         // break
  skip,          // continue
};

inline constexpr int64_t kTakesVarargs = 1, kTakesKwargs = 2;  // Node::number of a macro

struct Node;
using NodePtr = std::unique_ptr<Node>;

struct Node {
  Op op = Op::none;
  Place place = {};
  std::string text = {};
  int64_t number = 0;
  double real = 0;
  int depth = 1;  // of the tree below
  std::vector<NodePtr> kids = {};
  std::vector<NodePtr> args = {};                           // positional
  std::vector<std::pair<std::string, NodePtr>> named = {};  // "*" and "**" spread a value
  std::vector<std::string> names = {};
};

/// Throws Error "template.syntax" or "template.limit" with line and column.
NodePtr parse(std::string_view source);

/// Whether filters and tests of that name exist.
bool is_filter(std::string_view name);
bool is_test(std::string_view name);

}  // namespace plumb::jinja
