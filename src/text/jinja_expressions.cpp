// Expressions of chat templates.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "text/jinja_parser_impl.h"

namespace plumb::jinja {

// The value or values up to the end: a tuple when a comma says so, or nothing in parentheses.
NodePtr Parser::tuple(bool conditional, bool parenthesized, std::string_view stop) {
  const Place place = now().place;
  NodePtr all = make(Op::tuple, place);
  bool comma = false;
  while (true) {
    if (!all->kids.empty() && !accept(",")) break;
    comma = comma || !all->kids.empty();
    const TokenKind kind = now().kind;
    if (kind == TokenKind::output_end || kind == TokenKind::block_end || is(")") ||
        (!stop.empty() && is_name(stop)))
      break;
    add(*all, expression(conditional));
  }
  if (!comma && all->kids.size() == 1) return std::move(all->kids[0]);
  if (all->kids.empty() && !parenthesized) wrong("an expression");
  return all;
}

NodePtr Parser::expression(bool with_condition) {
  const Nest nest(*this);
  return with_condition ? conditional() : either();
}

NodePtr Parser::conditional() {
  NodePtr value = either();
  while (is_name("if")) {
    const Place place = now().place;
    ++at_;
    NodePtr condition = either();
    NodePtr other = accept_name("else") ? expression() : make(Op::none, place);
    value = make(Op::conditional, place, std::move(condition), std::move(value), std::move(other));
  }
  return value;
}

NodePtr Parser::either() {
  NodePtr left = both();
  for (Place p = now().place; accept_name("or"); p = now().place)
    left = make(Op::either, p, std::move(left), both());
  return left;
}

NodePtr Parser::both() {
  NodePtr left = invert();
  for (Place p = now().place; accept_name("and"); p = now().place)
    left = make(Op::both, p, std::move(left), invert());
  return left;
}

NodePtr Parser::invert() {
  const Place place = now().place;
  if (!accept_name("not")) return comparison();
  const Nest nest(*this);
  return make(Op::invert, place, invert());
}

NodePtr Parser::comparison() {
  NodePtr first = sum();
  NodePtr all = make(Op::compare, now().place);
  add(*all, std::move(first));
  while (true) {
    const std::string mark = now().text;
    if (now().kind == TokenKind::mark &&
        (mark == "==" || mark == "!=" || mark == "<" || mark == "<=" || mark == ">" || mark == ">=")) {
      ++at_;
      all->names.push_back(mark);
    } else if (accept_name("in")) {
      all->names.push_back("in");
    } else if (is_name("not") && ahead().kind == TokenKind::name && ahead().text == "in") {
      at_ += 2;
      all->names.push_back("not in");
    } else {
      break;
    }
    add(*all, sum());
  }
  return all->names.empty() ? std::move(all->kids[0]) : std::move(all);
}

NodePtr Parser::sum() {
  NodePtr left = concat();
  while (is("+") || is("-")) {
    NodePtr node = make(Op::binary, now().place);
    node->text = now().text;
    ++at_;
    add(*node, std::move(left));
    add(*node, concat());
    left = std::move(node);
  }
  return left;
}

NodePtr Parser::concat() {
  NodePtr first = product();
  if (!is("~")) return first;
  NodePtr all = make(Op::concat, now().place, std::move(first));
  while (accept("~")) add(*all, product());
  return all;
}

NodePtr Parser::product() {
  NodePtr left = power();
  while (is("*") || is("/") || is("//") || is("%")) {
    NodePtr node = make(Op::binary, now().place);
    node->text = now().text;
    ++at_;
    add(*node, std::move(left));
    add(*node, power());
    left = std::move(node);
  }
  return left;
}

NodePtr Parser::power() {
  NodePtr left = unary(true);
  while (is("**")) {
    NodePtr node = make(Op::binary, now().place);
    node->text = "**";
    ++at_;
    add(*node, std::move(left));
    add(*node, unary(true));
    left = std::move(node);
  }
  return left;
}

NodePtr Parser::unary(bool filters) {
  const Nest nest(*this);
  const Place place = now().place;
  NodePtr node;
  if (accept("-")) {
    node = make(Op::negate, place, unary(false));
  } else if (accept("+")) {
    node = make(Op::plus, place, unary(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return filters ? filters_and_tests(std::move(node)) : std::move(node);
}

NodePtr Parser::primary() {
  const Token& t = now();
  NodePtr node = make(Op::name, t.place);
  node->text = t.text;
  if (t.kind == TokenKind::name) {
    ++at_;
    if (t.text == "true" || t.text == "True" || t.text == "false" || t.text == "False") {
      node->op = Op::boolean;
      node->number = (t.text[0] | 32) == 't';
    } else if (t.text == "none" || t.text == "None") {
      node->op = Op::null;
    }
  } else if (t.kind == TokenKind::text) {
    node->op = Op::text;
    while (ahead().kind == TokenKind::text) ++at_, node->text += now().text;
    ++at_;
  } else if (t.kind == TokenKind::integer || t.kind == TokenKind::real) {
    node->op = t.kind == TokenKind::real ? Op::real : Op::integer;
    const char *begin = t.text.data(), *end = begin + t.text.size();
    const auto done = node->op == Op::real ? std::from_chars(begin, end, node->real)
                                           : std::from_chars(begin, end, node->number);
    if (done.ec != std::errc()) wrong("a number of 64 bits");
    ++at_;
  } else if (accept("(")) {
    node = tuple(true, true);
    expect(")");
  } else if (is("[")) {
    node = literal_list();
  } else if (is("{")) {
    node = literal_dict();
  } else {
    wrong("an expression");
  }
  return node;
}

NodePtr Parser::literal_list() {
  NodePtr node = make(Op::list, now().place);
  expect("[");
  while (!is("]")) {
    if (!node->kids.empty()) expect(",");
    if (is("]")) break;
    add(*node, expression());
  }
  expect("]");
  return node;
}

NodePtr Parser::literal_dict() {
  NodePtr node = make(Op::dict, now().place);
  expect("{");
  while (!is("}")) {
    if (!node->kids.empty()) expect(",");
    if (is("}")) break;
    add(*node, expression());
    expect(":");
    add(*node, expression());
  }
  expect("}");
  return node;
}

NodePtr Parser::postfix(NodePtr node) {
  while (true) {
    if (is(".") || is("[")) {
      node = subscript(std::move(node));
    } else if (is("(")) {
      node = make(Op::call, now().place, std::move(node));
      arguments(*node);
    } else {
      return node;
    }
  }
}

NodePtr Parser::filters_and_tests(NodePtr node) {
  while (true) {
    if (is("|")) {
      node = filter(std::move(node));
    } else if (is_name("is")) {
      node = test(std::move(node));
    } else if (is("(")) {
      node = make(Op::call, now().place, std::move(node));
      arguments(*node);
    } else {
      return node;
    }
  }
}

NodePtr Parser::filter(NodePtr node) {
  while (accept("|")) {
    const Place place = now().place;
    node = make(Op::filter, place, std::move(node));
    node->text = any_name("the name of a filter");
    while (accept(".")) node->text += "." + any_name("the name of a filter");
    check_known(is_filter(node->text), "filter", node->text, place);
    if (is("(")) arguments(*node);
  }
  return node;
}

NodePtr Parser::test(NodePtr node) {
  expect_name("is");
  const bool negated = accept_name("not");
  const Place place = now().place;
  node = make(Op::test, place, std::move(node));
  node->text = any_name("the name of a test");
  while (accept(".")) node->text += "." + any_name("the name of a test");
  const TokenKind kind = now().kind;
  if (is("(")) {
    arguments(*node);
  } else if ((kind == TokenKind::name || kind == TokenKind::text || kind == TokenKind::integer ||
              kind == TokenKind::real || is("[") || is("{")) &&
             !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) wrong("one test, not a chain");
    NodePtr argument = postfix(primary());
    node->depth = std::max(node->depth, argument->depth + 1);
    node->args.push_back(std::move(argument));
  }
  check_known(is_test(node->text), "test", node->text, place);
  return negated ? make(Op::invert, place, std::move(node)) : std::move(node);
}

NodePtr Parser::subscript(NodePtr node) {
  const Place place = now().place;
  if (accept("[")) {
    if (is("]")) wrong("a key");
    node = make(Op::item, place, std::move(node), subscript_key());
    if (is(",")) wrong("one key");
    expect("]");
    return node;
  }
  expect(".");
  if (now().kind == TokenKind::integer) {
    NodePtr key = primary();
    return make(Op::item, place, std::move(node), std::move(key));
  }
  node = make(Op::attribute, place, std::move(node));
  node->text = any_name("the name of an attribute");
  return node;
}

NodePtr Parser::subscript_key() {
  const Place place = now().place;
  const auto part = [&] { return is(":") || is("]") ? make(Op::none, place) : expression(); };
  NodePtr first = part();
  if (!is(":")) return first;
  expect(":");
  NodePtr last = part();
  NodePtr step = accept(":") ? part() : make(Op::none, place);
  return make(Op::slice, place, std::move(first), std::move(last), std::move(step));
}

void Parser::arguments(Node& node) {
  expect("(");
  for (bool first = true; !is(")"); first = false) {
    if (!first) expect(",");
    if (is(")")) break;
    std::string name;
    if (is("*") || is("**")) {
      name = now().text;
      ++at_;
    } else if (now().kind == TokenKind::name && ahead().kind == TokenKind::mark && ahead().text == "=") {
      name = now().text;
      at_ += 2;
    }
    NodePtr value = expression();
    node.depth = std::max(node.depth, value->depth + 1);
    if (name.empty()) {
      if (!node.named.empty()) wrong("positional arguments before named ones");
      node.args.push_back(std::move(value));
    } else {
      node.named.emplace_back(std::move(name), std::move(value));
    }
  }
  expect(")");
}

}  // namespace plumb::jinja
