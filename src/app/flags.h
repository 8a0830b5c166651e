// Flags in llama.cpp's spelling, each also settable by PLUMB_ARG_<NAME>, and those that all running verbs
// share.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/runner.h"

namespace plumb {

namespace trace {
struct Variant;
}

/// "--top-k,-k" -> "PLUMB_ARG_TOP_K", from the first long name.
std::string environment_name(const std::string& names);

template <class T>
CLI::Option* flag(CLI::App* command, const std::string& names, T& value, const std::string& help) {
  CLI::Option* option = nullptr;
  if constexpr (std::is_same_v<T, bool>) {
    option = command->add_flag(names, value, help);
  } else {
    option = command->add_option(names, value, help);
  }
  return option->envname(environment_name(names));
}

/// CLI11 knows no short names of several letters: turns -ub, -ctk, -ngl and their kin into their long names.
std::vector<std::string> expand_short_names(int argc, char** argv);

/// A folder of the user's cache; empty if there is no home.
std::string cache_folder(const std::string& name);

inline constexpr char kUbatchHelp[] =
    "Prompt tokens per pass over the weights (-ub); 0: 512, on a device without --fit 2048";

/// Model, threads, context and arithmetic.
struct ModelFlags {
  std::string model;
  std::string models_dir;
  std::string isa;
  std::string arith = "fast";
  std::string act;  // empty: what the backend does best
  std::string backend = "cpu";
  bool fallback = false;
  int n_gpu_layers = -1;
  std::string device;  // empty: the first, or all
  std::string split_mode = "none";
  bool fit = false;
  std::string cache_type_k = "f16", cache_type_v = "f16";
  int threads = 0;
  int ctx_size = 0;
  int ubatch_size = 0;  // 0: what the backend does best
  std::string spec = "none";
  int draft_max = 16;
  bool no_fusion = false;
  bool no_repack_cache = false;

  void add(CLI::App* command);
  /// Parts of add(), for commands that take no more: where a model runs; how the CPU runs it.
  void add_backend(CLI::App* command);
  void add_cpu(CLI::App* command);
  /// The file asked for, or the default model of the model folder; throws Error "model.none" saying how to
  /// get one.
  std::string path() const;
  ModelOptions options(Progress progress) const;
  RunnerOptions runner(std::atomic<bool>* cancel) const;

 private:
  void use_cuda(RunnerOptions& o) const;
  std::vector<int> devices() const;
};

/// A prompt as text, file or token ids.
struct PromptFlags {
  std::string text, file, tokens;
  bool escape = true;
  bool no_bos = false;
  bool parse_special = false;
  CLI::App* command = nullptr;

  void add(CLI::App* command);
  /// All throw Error "usage.prompt": when no prompt was given, when it has no tokens.
  void require() const;
  std::string input() const;  // the text
  std::vector<int> ids(const Model& model) const;
  /// As an engine with a fault would read it.
  std::vector<int> ids(const trace::Variant& variant) const;
};

/// "1,2, 3" -> numbers; throws Error "usage.value" with the flag and what it expects.
std::vector<int> parse_numbers(const std::string& text, const char* key, const char* expected);

/// \n, \t, \\ and their kin, as a shell's printf reads them.
std::string unescape(const std::string& text);

/// Help with types and defaults only: environment names follow one rule, ranges are told when they are
/// missed.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override;
};

/// What was wrong with the command line, of which `at` is the subcommand that was reached.
std::string describe(const CLI::App& root, const CLI::App& at, const CLI::ParseError& e);

/// Ctrl-C sets the flag; a second one ends the program at once.
std::atomic<bool>& interrupt_flag();
void catch_interrupt();
/// A model file that shrinks while it is mapped ends the program with a sentence and status 5.
void catch_lost_file();

/// Writes to standard output; throws Error "output.write" when that fails.
void print_out(std::string_view text);
/// Hands everything to the system; throws as print_out.
void flush_out();

}  // namespace plumb
