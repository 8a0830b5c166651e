#include "app/grammar_flags.h"

#include "app/flags.h"
#include "base/error.h"
#include "base/file.h"
#include "text/json_schema.h"

namespace plumb {

void GrammarFlags::add(CLI::App* c) {
  flag(c, "--grammar", grammar, "GBNF that the text must follow");
  flag(c, "--grammar-file", grammar_file, "The same from a file");
  flag(c, "-j,--json-schema", schema, "JSON schema that the text must fulfil; {} for any JSON");
  flag(c, "--json-schema-file", schema_file, "The same from a file (-jf)");
}

void GrammarFlags::check(bool ignore_eos) const {
  const auto refuse = [](const char* expected, const char* found) {
    throw Error({.code = "usage.grammar", .expected = expected, .found = found});
  };
  if (given() > 1) refuse("one of --grammar, --grammar-file, --json-schema, --json-schema-file", "several");
  if (given() == 1 && ignore_eos) refuse("a text that may end where its grammar does", "--ignore-eos");
}

std::optional<GrammarState> GrammarFlags::state(const Tokenizer& tokenizer) const {
  if (given() == 0) return std::nullopt;
  constexpr int64_t kMaxFile = 16 << 20;
  std::string text = !grammar.empty()        ? grammar
                     : !grammar_file.empty() ? read_file(grammar_file, kMaxFile)
                                             : "";
  if (text.empty()) {
    const std::string source = schema_file.empty() ? schema : read_file(schema_file, kMaxFile);
    text = json_schema_grammar(parse_json(source, schema_file.empty() ? "--json-schema" : schema_file));
  }
  return GrammarState(Grammar::parse(text, &tokenizer), std::make_shared<const GrammarVocabulary>(tokenizer));
}

}  // namespace plumb
