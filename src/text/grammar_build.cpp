// From the tree of a grammar to its network: Thompson's construction, with repetitions written out.
#include "text/grammar.h"
#include "text/grammar_gbnf.h"

namespace plumb {
namespace grammar {
namespace {

class Build {
 public:
  Build(const Source& source, Network& out) : source_(source), out_(out) {}

  void rules() {
    out_.rules = source_.rules;
    out_.root = source_.root;
    for (size_t r = 0; r < out_.rules.size(); ++r) {
      Rule& rule = out_.rules[r];
      rule.start = out_.add_state();
      rule.end = out_.add_state();
      skip(part(source_.bodies[r], rule.start), rule.end);
    }
    out_.finish();
  }

 private:
  void skip(int from, int to) { out_.add_edge(from, {.take = Take::nothing, .to = to}); }

  int behind(int from) {
    const int to = out_.add_state();
    skip(from, to);
    return to;
  }

  // Adds the part behind `from`, to which no edge of the part leads back, and returns where it ends.
  int part(int index, int from) {
    const Part& p = source_.parts[size_t(index)];
    switch (p.kind) {
      case Part::Kind::characters: {
        const int to = out_.add_state();
        out_.add_characters(from, to, p.ranges);
        return to;
      }
      case Part::Kind::rule:
        return take(from, Take::rule, p.id);
      case Part::Kind::token:
        return take(from, Take::token, p.id);
      case Part::Kind::other_token:
        return take(from, Take::other_token, p.id);
      case Part::Kind::sequence:
        for (int i : p.parts) from = part(i, from);
        return from;
      case Part::Kind::choice: {
        const int to = out_.add_state();
        for (int i : p.parts) skip(part(i, from), to);
        return to;
      }
      case Part::Kind::repeat:
        break;
    }
    return repeat(p, from);
  }

  int take(int from, Take what, int id) {
    const int to = out_.add_state();
    out_.add_edge(from, {.take = what, .id = id, .to = to});
    return to;
  }

  int repeat(const Part& p, int from) {
    for (int i = 0; i < p.least; ++i) from = part(p.parts[0], behind(from));
    if (p.most < 0) {
      const int loop = behind(from);
      skip(part(p.parts[0], loop), loop);
      return behind(loop);
    }
    const int to = out_.add_state();
    for (int i = p.least; i < p.most; ++i) {
      skip(from, to);
      from = part(p.parts[0], behind(from));
    }
    skip(from, to);
    return to;
  }

  const Source& source_;
  Network& out_;
};

}  // namespace

Network build_network(const Source& source) {
  Network n;
  Build(source, n).rules();
  return n;
}

}  // namespace grammar

Grammar Grammar::parse(std::string_view source, const Tokenizer* tokenizer) {
  Grammar g;
  g.network_ = std::make_shared<const grammar::Network>(
      grammar::build_network(grammar::parse_gbnf(source, tokenizer)));
  return g;
}

}  // namespace plumb
