#include "text/jinja_parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_parser_impl.h"

namespace plumb::jinja {

Parser::Nest::Nest(Parser& p) : parser(p) {
  if (++p.nesting_ > 3 * kMaxNesting) {  // an expression in brackets takes up to three levels
    --p.nesting_;
    fail_at(p.now().place, "template.limit", fmt::format("at most {} nested parts", kMaxNesting), "more");
  }
}

bool Parser::accept(std::string_view mark) {
  if (!is(mark)) return false;
  ++at_;
  return true;
}

bool Parser::accept_name(std::string_view name) {
  if (!is_name(name)) return false;
  ++at_;
  return true;
}

void Parser::expect(std::string_view mark) {
  if (!accept(mark)) wrong(fmt::format("'{}'", mark));
}

void Parser::expect_name(std::string_view name) {
  if (!accept_name(name)) wrong(fmt::format("'{}'", name));
}

std::string Parser::any_name(const char* what) {
  if (now().kind != TokenKind::name) wrong(what);
  return tokens_[at_++].text;
}

void Parser::end_of_block() {
  if (now().kind != TokenKind::block_end) wrong("'%}'");
  ++at_;
}

void Parser::wrong(std::string expected) const {
  fail_at(now().place, "template.syntax", std::move(expected), '\'' + printable(now().text, 40) + '\'');
}

NodePtr Parser::make(Op op, Place place) const {
  auto node = std::make_unique<Node>();
  node->op = op;
  node->place = place;
  return node;
}

NodePtr Parser::make(Op op, Place place, NodePtr a, NodePtr b, NodePtr c) const {
  NodePtr node = make(op, place);
  add(*node, std::move(a));
  if (b) add(*node, std::move(b));
  if (c) add(*node, std::move(c));
  return node;
}

void Parser::add(Node& parent, NodePtr child) {
  parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > kMaxTreeDepth) {
    fail_at(child->place, "template.limit", fmt::format("a tree at most {} deep", kMaxTreeDepth), "more");
  }
  parent.kids.push_back(std::move(child));
}

void Parser::check_known(bool known, const char* what, const std::string& name, Place place) const {
  if (known || soft_) return;
  fail_at(place, "template.syntax", fmt::format("a known {}", what), '\'' + printable(name, 40) + '\'');
}

NodePtr Parser::statements(std::initializer_list<std::string_view> ends) {
  NodePtr body = make(Op::body, now().place);
  while (now().kind != TokenKind::end) {
    if (now().kind == TokenKind::data) {
      NodePtr node = make(Op::data, now().place);
      node->text = tokens_[at_++].text;
      add(*body, std::move(node));
    } else if (now().kind == TokenKind::output_begin) {
      const Place place = now().place;
      ++at_;
      add(*body, make(Op::output, place, tuple(true, false)));
      if (now().kind != TokenKind::output_end) wrong("'}}'");
      ++at_;
    } else {
      ++at_;
      if (now().kind != TokenKind::name) wrong("the name of a statement");
      if (std::find(ends.begin(), ends.end(), now().text) != ends.end()) return body;
      add(*body, statement());
      end_of_block();
    }
  }
  if (ends.size()) wrong(fmt::format("'{}'", *ends.begin()));
  return body;
}

// The end of a block, and the statements after it up to one of those names.
NodePtr Parser::body_until(std::initializer_list<std::string_view> ends) {
  end_of_block();
  return statements(ends);
}

NodePtr Parser::statement() {
  const Nest nest(*this);
  const std::string name = now().text;
  const Place place = now().place;
  if (name == "set") return parse_set();
  if (name == "if") return parse_if();
  if (name == "for") return parse_for();
  if (name == "macro") return parse_macro();
  if (name == "call") return parse_call_block();
  if (name == "filter") return parse_filter_block();
  if (name == "with") return parse_with();
  if (name == "generation") return parse_generation();
  if (name != "break" && name != "continue") wrong("a statement of chat templates");
  if (loops_ == 0) wrong("a loop around it");
  ++at_;
  return make(name == "break" ? Op::leave : Op::skip, place);
}

NodePtr Parser::target(bool with_namespace) {
  const Place place = now().place;
  NodePtr all = make(Op::tuple, place);
  bool comma = false;
  while (true) {
    if (!all->kids.empty() && !accept(",")) break;
    comma = comma || !all->kids.empty();
    if (is_name("in") || is("=") || now().kind == TokenKind::block_end) break;
    if (accept("(")) {
      add(*all, target(false));
      expect(")");
      continue;
    }
    NodePtr name = make(Op::name, now().place);
    name->text = any_name("the name of a variable");
    for (const char* word : {"true", "false", "none", "True", "False", "None"}) {
      if (name->text == word) fail_at(name->place, "template.syntax", "the name of a variable", name->text);
    }
    if (with_namespace && accept(".")) {
      const Place place_of_name = name->place;
      name = make(Op::attribute, place_of_name, std::move(name));
      name->text = any_name("the name of an attribute");
    }
    add(*all, std::move(name));
  }
  if (all->kids.empty()) wrong("the name of a variable");
  return comma ? std::move(all) : std::move(all->kids[0]);
}

NodePtr Parser::parse_set() {
  const Place place = now().place;
  ++at_;
  NodePtr to = target(true);
  if (accept("=")) return make(Op::set, place, std::move(to), tuple(true, false));
  NodePtr chain = filter(make(Op::none, place));
  NodePtr body = body_until({"endset"});
  ++at_;
  return make(Op::set_block, place, std::move(to), std::move(chain), std::move(body));
}

NodePtr Parser::parse_if() {
  NodePtr node = make(Op::branch, now().place);
  const bool outer = std::exchange(soft_, true);
  while (true) {
    ++at_;
    add(*node, tuple(false, false));
    add(*node, body_until({"endif", "elif", "else"}));
    if (is_name("elif")) continue;
    if (is_name("else")) {
      ++at_;
      add(*node, body_until({"endif"}));
    }
    ++at_;
    soft_ = outer;
    return node;
  }
}

NodePtr Parser::parse_for() {
  NodePtr node = make(Op::loop, now().place);
  ++at_;
  add(*node, target(false));
  expect_name("in");
  add(*node, tuple(false, false, "recursive"));
  const bool outer = std::exchange(soft_, false);
  add(*node, accept_name("if") ? expression() : make(Op::none, now().place));
  node->number = accept_name("recursive");
  ++loops_;
  add(*node, body_until({"endfor", "else"}));
  --loops_;
  if (is_name("else")) {
    ++at_;
    add(*node, body_until({"endfor"}));
  } else {
    add(*node, make(Op::body, now().place));
  }
  ++at_;
  soft_ = outer;
  return node;
}

void Parser::parameters(Node& macro) {
  expect("(");
  while (!is(")")) {
    if (!macro.names.empty()) expect(",");
    macro.names.push_back(any_name("the name of a parameter"));
    if (accept("=")) {
      macro.args.push_back(expression());
      macro.depth = std::max(macro.depth, macro.args.back()->depth + 1);
    } else if (!macro.args.empty()) {
      wrong("a default, as the parameter before has one");
    }
  }
  expect(")");
}

NodePtr Parser::parse_macro() {
  NodePtr node = make(Op::macro, now().place);
  ++at_;
  node->text = any_name("the name of a macro");
  parameters(*node);
  const bool outer = std::exchange(soft_, false);
  const int loops = std::exchange(loops_, 0);
  const size_t begin = at_;
  add(*node, body_until({"endmacro"}));
  for (size_t i = begin; i < at_; ++i) {  // what else than its parameters the macro takes
    if (tokens_[i].kind != TokenKind::name) continue;
    if (tokens_[i].text == "varargs") node->number |= kTakesVarargs;
    if (tokens_[i].text == "kwargs") node->number |= kTakesKwargs;
  }
  ++at_;
  soft_ = outer;
  loops_ = loops;
  return node;
}

NodePtr Parser::parse_call_block() {
  NodePtr node = make(Op::call_block, now().place);
  ++at_;
  node->text = "caller";
  if (is("(")) parameters(*node);
  NodePtr call = expression();
  if (call->op != Op::call) fail_at(call->place, "template.syntax", "a call", "another expression");
  add(*node, std::move(call));
  const int loops = std::exchange(loops_, 0);
  add(*node, body_until({"endcall"}));
  loops_ = loops;
  ++at_;
  return node;
}

NodePtr Parser::parse_filter_block() {
  const Place place = now().place;
  const Token pipe{TokenKind::mark, "|", place};
  tokens_[at_] = pipe;  // `filter upper` reads as `| upper`
  NodePtr chain = filter(make(Op::none, place));
  NodePtr body = body_until({"endfilter"});
  ++at_;
  return make(Op::filter_block, place, std::move(chain), std::move(body));
}

NodePtr Parser::parse_with() {
  NodePtr node = make(Op::with, now().place);
  ++at_;
  while (now().kind != TokenKind::block_end) {
    if (!node->kids.empty()) expect(",");
    add(*node, target(false));
    expect("=");
    add(*node, expression());
  }
  add(*node, body_until({"endwith"}));
  ++at_;
  return node;
}

// What the assistant said, marked for training: a call block of nothing, so its variables stay inside.
NodePtr Parser::parse_generation() {
  NodePtr node = make(Op::with, now().place);
  ++at_;
  add(*node, body_until({"endgeneration"}));
  ++at_;
  return node;
}

NodePtr parse(std::string_view source) { return Parser(lex(source)).statements({}); }

}  // namespace plumb::jinja
