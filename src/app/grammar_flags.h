// What the text must follow, as flags: a grammar or a JSON schema, as text or as a file.
#pragma once

#include <optional>
#include <string>

#include "text/grammar.h"

namespace CLI {
class App;
}

namespace plumb {

struct GrammarFlags {
  std::string grammar, grammar_file, schema, schema_file;

  void add(CLI::App* command);

  /// Throws Error "usage.grammar" when several were given, or one where the text may not end.
  void check(bool ignore_eos) const;

  /// Nothing when none was given. Throws as Grammar::parse and json_schema_grammar.
  std::optional<GrammarState> state(const Tokenizer& tokenizer) const;

 private:
  int given() const {
    return !grammar.empty() + !grammar_file.empty() + !schema.empty() + !schema_file.empty();
  }
};

}  // namespace plumb
