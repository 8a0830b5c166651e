#include "app/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "app/exit_codes.h"
#include "base/error.h"
#include "base/file.h"
#include "trace/variant.h"

namespace plumb {
namespace {

constexpr std::pair<const char*, const char*> kShortNames[] = {
    {"-ub", "--ubatch-size"},    {"-ctk", "--cache-type-k"},
    {"-ctv", "--cache-type-v"},  {"-ngl", "--n-gpu-layers"},
    {"-pg", "--prompt-gen"},     {"-npp", "--n-pp"},
    {"-ntg", "--n-tg"},          {"-npl", "--n-pl"},
    {"-st", "--single-turn"},    {"-mli", "--multiline-input"},
    {"-sys", "--system-prompt"}, {"-sysf", "--system-prompt-file"},
    {"-co", "--color"},          {"-jf", "--json-schema-file"},
    {"-np", "--parallel"},       {"-cram", "--cache-ram"},
    {"-to", "--timeout"},        {"-sm", "--split-mode"},
};

constexpr const char* kDefaultModel = "SmolLM2-135M-Instruct.Q4_1.gguf";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Where packed weights are kept; empty if there is no home.
std::string packed_folder() {
  const std::string own = environment("PLUMB_PACKED");
  return own.empty() ? cache_folder("packed") : own;
}

std::string model_folder(const std::string& asked) {
  if (!asked.empty()) return asked;
  if (const std::string own = environment("PLUMB_MODELS"); !own.empty()) return own;
  const std::string data = environment("XDG_DATA_HOME");
  return (data.empty() ? environment("HOME") + "/.local/share" : data) + "/plumb/models";
}

KvType kv_type(const std::string& name, const char* key) {
  constexpr std::pair<const char*, KvType> kNames[] = {
      {"f16", KvType::f16}, {"f32", KvType::f32}, {"bf16", KvType::bf16}, {"q8_0", KvType::q8_0}};
  for (const auto& [known, type] : kNames) {
    if (name == known) return type;
  }
  throw Error({.code = "usage.value",
               .expected = "one of f32, f16, bf16, q8_0",
               .found = printable(name),
               .where = {.key = key}});
}

std::atomic<bool> interrupted = false;

void on_interrupt(int) {
  if (interrupted.exchange(true)) std::_Exit(130);
}

void on_lost_file(int) {
  constexpr std::string_view kText =
      "plumb: the model file was cut or became unreadable while in use [file.lost]\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kText.data(), kText.size());
  std::_Exit(kExitFile);
}

}  // namespace

std::string environment_name(const std::string& names) {
  std::string name = "PLUMB_ARG_";
  const size_t start = names.find("--");
  for (size_t i = start + 2; i < names.size() && names[i] != ','; ++i) {
    name += names[i] == '-' ? '_' : char(std::toupper(static_cast<unsigned char>(names[i])));
  }
  return name;
}

std::vector<std::string> expand_short_names(int argc, char** argv) {
  std::vector<std::string> out;
  for (int i = 1; i < argc; ++i) {
    out.emplace_back(argv[i]);
    for (const auto& [shorter, longer] : kShortNames) {
      if (out.back() == shorter) out.back() = longer;
    }
  }
  return out;
}

void ModelFlags::add_cpu(CLI::App* c) {
  flag(c, "--isa", isa, "Instruction set: scalar, avx2, avx512; also PLUMB_ISA");
  flag(c, "--act", act,
       "Rounding of activations: 8 bits, 8 refined (8r, the CPU's default), 16 (the default of cuda), f16 "
       "(of cuda alone: prompts on its tensor cores, with bits of their own)")
      ->check(CLI::IsMember({"8", "8r", "16", "f16"}));
}

void ModelFlags::add(CLI::App* c) {
  flag(c, "-m,--model", model, "Model file (GGUF); default: the model folder's");
  flag(c, "--models-dir", models_dir, "Model folder");
  flag(c, "-t,--threads", threads, "Threads; default: one per core")->check(CLI::Range(0, 1024));
  flag(c, "-c,--ctx-size", ctx_size, "Tokens of context; 0: as the model was trained")
      ->check(CLI::Range(0, 1 << 30));
  flag(c, "--ubatch-size", ubatch_size, kUbatchHelp)->check(CLI::Range(0, 65536))->capture_default_str();
  flag(c, "--cache-type-k", cache_type_k, "Type of cached keys: f32, f16, bf16, q8_0 (-ctk)")
      ->capture_default_str();
  flag(c, "--cache-type-v", cache_type_v, "Type of cached values: f32, f16, bf16, q8_0 (-ctv)")
      ->capture_default_str();
  flag(c, "--arith", arith,
       "fast, or the reference in ref32 or ref64; with --backend cuda also f32: weights decoded, all in f32")
      ->check(CLI::IsMember({"fast", "f32", "ref32", "ref64"}))
      ->capture_default_str();
  add_backend(c);
  flag(c, "--fallback", fallback,
       "Run on the CPU, and say so, if the device cannot be used or computes wrongly");
  add_cpu(c);
  flag(c, "--spec", spec,
       "Speculation: none, or ngram, which looks ahead where the text repeats itself; changes no bit")
      ->check(CLI::IsMember({"none", "ngram"}))
      ->capture_default_str();
  flag(c, "--draft-max,--draft", draft_max, "Tokens that --spec may draft at once")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  flag(c, "--no-repack-cache", no_repack_cache, "Keep no packed copy of the weights for the next load");
  flag(c, "--no-fusion", no_fusion, "One step per operation; changes no bit");
}

std::string cache_folder(const std::string& name) {
  const std::string cache = environment("XDG_CACHE_HOME"), home = environment("HOME");
  if (cache.empty() && home.empty()) return {};
  return (cache.empty() ? home + "/.cache" : cache) + "/plumb/" + name;
}

std::string ModelFlags::path() const {
  if (!model.empty()) return model;
  namespace fs = std::filesystem;
  const std::string folder = model_folder(models_dir);
  std::error_code ignored;
  if (fs::is_regular_file(folder + "/" + kDefaultModel, ignored)) return folder + "/" + kDefaultModel;
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".gguf") found.push_back(entry.path().string());
  }
  if (found.size() == 1) return found[0];
  throw Error({.code = "usage.model",
               .expected = fmt::format("a model: -m FILE, or {} in {}", kDefaultModel, folder),
               .found = found.empty() ? "none" : fmt::format("{} others; name one with -m", found.size()),
               .remedy = "'./dev demo' in the source folder fetches it"});
}

ModelOptions ModelFlags::options(Progress progress) const {
  ModelOptions o;
  o.threads = threads > 0 ? threads : std::max(1, int(std::thread::hardware_concurrency()));
  const std::string asked = isa.empty() ? environment("PLUMB_ISA") : isa;
  if (!asked.empty()) {
    const auto found = find_isa(asked);
    std::vector<std::string> names;
    for (Isa i : all_isas()) {
      if (supported(i)) names.emplace_back(name(i));
    }
    if (!found || !supported(*found)) {
      throw Error({.code = "usage.isa",
                   .expected = fmt::format("one that this processor runs: {}", fmt::join(names, ", ")),
                   .found = printable(asked),
                   .where = {.key = "--isa"}});
    }
    o.isa = *found;
  }
  if (!no_repack_cache) o.packed_folder = packed_folder();
  o.progress = std::move(progress);
  return o;
}

RunnerOptions ModelFlags::runner(std::atomic<bool>* cancel) const {
  RunnerOptions o;
  o.arith = arith == "ref64"   ? Arith::ref64
            : arith == "ref32" ? Arith::ref32
            : arith == "f32"   ? Arith::f32
                               : Arith::fast;
  o.n_ctx = ctx_size;
  if (backend != "cpu" && n_gpu_layers != 0) use_cuda(o);
  // Tensor cores are full with 2,048 tokens; --fit leaves the room to layers.
  if (o.backend == Backend::cuda && !o.fit) o.n_ubatch = 2048;
  if (ubatch_size > 0) o.n_ubatch = ubatch_size;
  o.kv = {kv_type(cache_type_k, "--cache-type-k"), kv_type(cache_type_v, "--cache-type-v")};
  const bool on_cuda = o.backend == Backend::cuda;
  if (o.arith == Arith::f32 && !on_cuda) {
    throw Error({.code = "usage.arith",
                 .expected = "--backend cuda with f32; on the CPU ref32 is the arithmetic in f32",
                 .found = arith,
                 .where = {.key = "--arith"}});
  }
  if (on_cuda && (o.kv.v != o.kv.k || (o.kv.k != KvType::f16 && o.kv.k != KvType::f32))) {
    throw Error({.code = "usage.value",
                 .expected = "f16 or f32 for keys and values alike, with --backend cuda",
                 .found = fmt::format("{} and {}", cache_type_k, cache_type_v),
                 .where = {.key = "--cache-type-v"}});
  }
  o.fuse = !no_fusion;
  o.draft = spec == "ngram" ? draft_max : 0;
  if (o.draft > 0 && (o.arith != Arith::fast || backend != "cpu")) {
    throw Error({.code = "usage.spec",
                 .expected = "--arith fast and --backend cpu with --spec ngram",
                 .found = fmt::format("--arith {} --backend {}", arith, backend),
                 .where = {.key = "--spec"}});
  }
  if (act == "f16" && (backend == "cpu" || n_gpu_layers == 0)) {
    throw Error({.code = "usage.act",
                 .expected = "--backend cuda with f16; on the CPU 8, 8r or 16",
                 .found = act,
                 .where = {.key = "--act"}});
  }
  o.cuda_f16 = act == "f16" && o.arith == Arith::fast && on_cuda;
  const bool wide = act == "16" || act == "f16" || (act.empty() && backend != "cpu");
  o.rounding = wide ? Rounding::int16 : act == "8" ? Rounding::int8 : Rounding::refined;
  o.cancel = cancel;
  return o;
}

void PromptFlags::add(CLI::App* c) {
  command = c;
  flag(c, "-p,--prompt", text, "Prompt");
  flag(c, "-f,--file", file, "Prompt from a file")->excludes("--prompt");
  flag(c, "--tokens", tokens, "Prompt as token ids: 1,2,3")->excludes("--prompt")->excludes("--file");
  c->add_flag("-e,--escape,!--no-escape", escape, "Read \\n, \\t, \\\\ in the prompt as escapes (on)");
  flag(c, "--no-bos", no_bos, "Do not add the model's beginning-of-text token");
  flag(c, "--parse-special", parse_special, "Text that spells a control token becomes that token");
}

void PromptFlags::require() const {
  if (command->count("--prompt") + command->count("--file") + command->count("--tokens") > 0) return;
  throw Error(
      {.code = "usage.prompt", .expected = "a prompt: -p TEXT, -f FILE or --tokens IDS", .found = "none"});
}

std::string PromptFlags::input() const {
  return !file.empty() ? read_file(file, 64 << 20) : escape ? unescape(text) : text;
}

namespace {
std::vector<int> token_ids(const std::string& text) {
  return parse_numbers(text, "--tokens", "token ids separated by commas");
}

std::vector<int> not_empty(std::vector<int> ids) {
  if (!ids.empty()) return ids;
  throw Error(
      {.code = "usage.prompt", .expected = "a prompt of at least one token", .found = "an empty one"});
}
}  // namespace

std::vector<int> PromptFlags::ids(const Model& model) const {
  if (command->count("--tokens") > 0) return not_empty(token_ids(tokens));
  return not_empty(
      model.tokenizer().encode(input(), {.add_special = !no_bos, .parse_special = parse_special}));
}

std::vector<int> PromptFlags::ids(const trace::Variant& variant) const {
  if (command->count("--tokens") > 0) return not_empty(token_ids(tokens));
  return not_empty(
      trace::encode_text(variant, input(), {.add_special = !no_bos, .parse_special = parse_special}));
}

std::vector<int> parse_numbers(const std::string& text, const char* key, const char* expected) {
  std::vector<int> ids;
  const char *p = text.data(), *end = p + text.size();
  while (p < end) {
    if (*p == ',' || *p == ' ' || *p == '\n') {
      ++p;
      continue;
    }
    int id = 0;
    const auto [rest, error] = std::from_chars(p, end, id);
    if (error != std::errc() || id < 0) {
      throw Error({.code = "usage.value",
                   .expected = expected,
                   .found = printable(std::string_view(p, size_t(end - p)), 20),
                   .where = {.key = key}});
    }
    ids.push_back(id);
    p = rest;
  }
  return ids;
}

std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    switch (const char c = text[++i]) {
      case 'n':
        out += '\n';
        break;
      case 'r':
        out += '\r';
        break;
      case 't':
        out += '\t';
        break;
      case '\\':
      case '\'':
      case '"':
        out += c;
        break;
      default:
        (out += '\\') += c;
    }
  }
  return out;
}

std::atomic<bool>& interrupt_flag() { return interrupted; }

void catch_interrupt() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
}

void catch_lost_file() {
  struct sigaction action = {};
  action.sa_handler = on_lost_file;
  ::sigaction(SIGBUS, &action, nullptr);
}

void print_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) flush_out();
}

void flush_out() {
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return;
  throw Error({.code = "output.write",
               .expected = "to write the result",
               .found = "a full or closed output",
               .where = {.file = "standard output"}});
}

}  // namespace plumb
