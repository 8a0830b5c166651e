// plumb quantize: a model file again in another type, with llama-quantize's arguments and habits.
#include "engine/quantize.h"

#include <fmt/format.h>
#include <regex.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <thread>

#include "app/command.h"
#include "app/flags.h"
#include "app/progress.h"
#include "app/terminal_text.h"
#include "base/error.h"
#include "quant/encode.h"

namespace plumb {
namespace {

struct QuantizeFlags {
  std::string in, out, type, output_type, embedding_type;
  std::vector<std::string> tensor_types;
  int threads = 0;
  bool allow_requantize = false, leave_output = false, pure = false, dry_run = false;
};

[[noreturn]] void refuse_value(const char* key, std::string expected, const std::string& found) {
  throw Error({.code = "usage.value",
               .expected = std::move(expected),
               .found = printable(found),
               .where = {.key = key}});
}

const FileType& type_of(const std::string& name) {
  if (const FileType* t = find_file_type(name)) return *t;
  std::string known;
  for (const FileType& t : file_types()) known += fmt::format("{}{}", known.empty() ? "" : ", ", t.name);
  refuse_value("TYPE", "one of " + known, name);
}

Format format_of(const char* key, const std::string& text) {
  std::string name = text;
  for (char& c : name) c = char(std::toupper(static_cast<unsigned char>(c)));
  const FormatInfo* f = find_format(name);
  if (f == nullptr || !can_encode(f->format))
    refuse_value(key, "a format that can be written, such as Q6_K", text);
  return f->format;
}

// PATTERN=TYPE, the pattern an extended regular expression searched for in the tensor's name.
class NamedType {
 public:
  explicit NamedType(const std::string& text) : expression_(new regex_t, [](regex_t* r) { delete r; }) {
    const size_t equals = text.rfind('=');
    if (equals == 0 || equals == text.npos) refuse_value("--tensor-type", "NAME=TYPE", text);
    format_ = format_of("--tensor-type", text.substr(equals + 1));
    std::string pattern = text.substr(0, equals);
    for (size_t at = 0; (at = pattern.find("\\d", at)) != pattern.npos;) pattern.replace(at, 2, "[0-9]");
    if (::regcomp(expression_.get(), pattern.c_str(), REG_EXTENDED | REG_NOSUB) != 0)
      refuse_value("--tensor-type", "a regular expression before '='", text);
    expression_ = {expression_.release(), [](regex_t* r) {
                     ::regfree(r);
                     delete r;
                   }};
  }
  bool matches(const std::string& name) const {
    return ::regexec(expression_.get(), name.c_str(), 0, nullptr, 0) == 0;
  }
  Format format() const { return format_; }

 private:
  std::unique_ptr<regex_t, void (*)(regex_t*)> expression_;
  Format format_ = Format::F32;
};

QuantizeOptions settings(const QuantizeFlags& o) {
  QuantizeOptions q;
  q.mix.type = &type_of(o.type);
  q.mix.pure = o.pure, q.mix.leave_output = o.leave_output;
  if (!o.output_type.empty()) q.mix.output = format_of("--output-tensor-type", o.output_type);
  if (!o.embedding_type.empty()) q.mix.embedding = format_of("--token-embedding-type", o.embedding_type);
  auto named = std::make_shared<std::vector<NamedType>>();
  for (const std::string& text : o.tensor_types) named->emplace_back(text);
  q.mix.named = [named](std::string_view name) -> std::optional<Format> {
    for (const NamedType& n : *named) {
      if (n.matches(std::string(name))) return n.format();
    }
    return {};
  };
  q.allow_requantize = o.allow_requantize;
  return q;
}

void refuse_same_file(const Gguf& file, const std::string& out) {
  for (const std::string& part : file.files()) {
    std::error_code ignored;
    if (std::filesystem::equivalent(part, out, ignored)) refuse_value("OUT", "another file than IN", out);
  }
}

void quantize_file(const QuantizeFlags& o) {
  catch_interrupt();
  const QuantizeOptions options = settings(o);
  const Gguf file = Gguf::open(o.in);
  refuse_same_file(file, o.out);
  const QuantizePlan plan = plan_quantize(file, options);
  if (o.dry_run) {
    for (const QuantizePlan::Change& c : plan.changes) {
      print_out(fmt::format("{:<40} {:>7} -> {}{}\n", printable(c.tensor->name), info(c.tensor->format).name,
                            info(c.to.format).name, c.to.fallback ? " (row length)" : ""));
    }
  }
  const auto warn = [](int n, const char* what) {
    if (n > 0) fmt::print(stderr, "plumb: warning: {} tensors {}\n", n, what);
  };
  warn(plan.again, "are quantised a second time: their error grows");
  warn(plan.fallbacks, "take a type of smaller blocks: the wanted blocks do not divide their rows");
  int64_t before = 0;
  for (const GgufTensor& t : file.tensors()) before += t.bytes;
  const auto start = std::chrono::steady_clock::now();
  if (!o.dry_run) {
    ProgressBar bar;
    Pool pool(o.threads > 0 ? o.threads : std::max(1, int(std::thread::hardware_concurrency())));
    quantize(file, plan, o.out, pool, bar.callback(), &interrupt_flag());
  }
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  constexpr double kMib = 1 << 20;
  fmt::print(stderr, "{} tensors, {:.2f} MiB -> {:.2f} MiB, {:.1f} s\n", plan.changes.size(),
             double(before) / kMib, double(plan.bytes) / kMib, spent.count());
  flush_out();
}

}  // namespace

void add_quantize(CLI::App& root) {
  CLI::App* c = root.add_subcommand("quantize", "Write a model file again in a smaller type");
  auto o = std::make_shared<QuantizeFlags>();
  c->add_option("IN", o->in, "Model file, best F16, BF16 or F32; the first part of a split one")->required();
  c->add_option("OUT", o->out, "File to write; replaced when it exists")->required();
  c->add_option("TYPE", o->type, "Q4_K_M, Q8_0, ...")->required();
  c->add_option("THREADS", o->threads, "Threads; default: one per core")->check(CLI::Range(0, 1024));
  flag(c, "--allow-requantize", o->allow_requantize, "Also tensors that are quantised already, at a loss");
  flag(c, "--leave-output-tensor", o->leave_output, "Keep output.weight as it is");
  flag(c, "--pure", o->pure, "The same type for all matrices");
  flag(c, "--output-tensor-type", o->output_type, "Type of output.weight");
  flag(c, "--token-embedding-type", o->embedding_type, "Type of token_embd.weight");
  flag(c, "--tensor-type", o->tensor_types, "PATTERN=TYPE for tensors by name; may be given again")
      ->allow_extra_args(false);
  flag(c, "--dry-run", o->dry_run, "Only say what would be written");
  c->callback([o] { quantize_file(*o); });
}

}  // namespace plumb
