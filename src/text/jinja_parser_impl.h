// The parser's two halves share this class: jinja_expressions.cpp and jinja_parser.cpp.
#pragma once

#include <initializer_list>

#include "text/jinja_parser.h"

namespace plumb::jinja {

inline constexpr int kMaxNesting = 100;    // of brackets and blocks in the source
inline constexpr int kMaxTreeDepth = 500;  // of the tree: long sums lean to the left

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  NodePtr statements(std::initializer_list<std::string_view> ends);  // until one of those names, which stays

 private:
  struct Nest {
    explicit Nest(Parser& p);
    ~Nest() { --parser.nesting_; }
    Parser& parser;
  };

  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  bool is(std::string_view mark) const { return now().kind == TokenKind::mark && now().text == mark; }
  bool is_name(std::string_view name) const { return now().kind == TokenKind::name && now().text == name; }
  bool accept(std::string_view mark);
  bool accept_name(std::string_view name);
  void expect(std::string_view mark);
  void expect_name(std::string_view name);
  std::string any_name(const char* what);
  void end_of_block();
  [[noreturn]] void wrong(std::string expected) const;
  NodePtr make(Op op, Place place) const;
  NodePtr make(Op op, Place place, NodePtr a, NodePtr b = nullptr, NodePtr c = nullptr) const;
  static void add(Node& parent, NodePtr child);
  void check_known(bool known, const char* what, const std::string& name, Place place) const;

  // Statements.
  NodePtr statement();
  NodePtr parse_set();
  NodePtr parse_if();
  NodePtr parse_for();
  NodePtr parse_macro();
  NodePtr parse_call_block();
  NodePtr parse_filter_block();
  NodePtr parse_with();
  NodePtr parse_generation();
  void parameters(Node& macro);
  NodePtr target(bool with_namespace);
  NodePtr body_until(std::initializer_list<std::string_view> ends);

  // Expressions, loosest first.
  NodePtr tuple(bool conditional, bool parenthesized, std::string_view stop = {});
  NodePtr expression(bool conditional = true);
  NodePtr conditional();
  NodePtr either();
  NodePtr both();
  NodePtr invert();
  NodePtr comparison();
  NodePtr sum();
  NodePtr concat();
  NodePtr product();
  NodePtr power();
  NodePtr unary(bool filters);
  NodePtr primary();
  NodePtr literal_list();
  NodePtr literal_dict();
  NodePtr postfix(NodePtr node);
  NodePtr filters_and_tests(NodePtr node);
  NodePtr filter(NodePtr node);
  NodePtr test(NodePtr node);
  NodePtr subscript(NodePtr node);
  NodePtr subscript_key();
  void arguments(Node& node);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;      // around this place, within the macro
  bool soft_ = false;  // inside a condition: unknown filters fail when they are met, not when they are read
};

}  // namespace plumb::jinja
