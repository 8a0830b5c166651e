// plumb serve: a model behind HTTP, for OpenAI's and Anthropic's clients and for browsers.
#include <fmt/format.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <future>

#include "app/command.h"
#include "app/exit_codes.h"
#include "app/flags.h"
#include "app/progress.h"
#include "app/sampler_flags.h"
#include "app/serve_instrument.h"
#include "app/supervise.h"
#include "base/error.h"
#include "base/file.h"
#include "chat/session.h"
#include "server/aside.h"
#include "server/embeddings.h"
#include "server/receipt.h"
#include "server/server.h"

namespace plumb {
namespace {

struct Options {
  ModelFlags model;
  server::ListenOptions listen;
  server::AccessOptions access;
  SchedulerOptions scheduler;
  SamplerFlags sampler;
  std::string alias, key_file, chat_template, template_file, template_kwargs, pooling = "mean", log_file;
  int cache_mib = 1024, n_predict = -1;
  double timeout = 30;
  bool insecure = false, slots = true, metrics = false, cache_prompt = true, verbose = false,
       supervise = false;
};

// One key a line; only its owner may read the file.
std::vector<std::string> keys_of(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) == 0 && (info.st_mode & 077) != 0) {
    throw Error({.code = "usage.key_file",
                 .expected = "a file that only its owner may read",
                 .found = fmt::format("mode {:o}", info.st_mode & 0777),
                 .where = {.file = path, .key = "--api-key-file"},
                 .remedy = "chmod 600 it"});
  }
  std::vector<std::string> keys;
  std::string line;
  for (char c : read_file(path, 1 << 20) + "\n") {
    if (c != '\n' && c != '\r') {
      line += c;
    } else if (!line.empty()) {
      keys.push_back(std::exchange(line, {}));
    }
  }
  if (!keys.empty()) return keys;
  throw Error(
      {.code = "usage.key_file", .expected = "a key a line", .found = "none", .where = {.file = path}});
}

void collect_keys(Options& o) {
  if (!o.key_file.empty()) {
    const std::vector<std::string> more = keys_of(o.key_file);
    o.access.keys.insert(o.access.keys.end(), more.begin(), more.end());
  }
  for (const std::string& key : o.access.keys) {
    if (key.empty()) throw Error({.code = "usage.key", .expected = "a key", .found = "an empty one"});
  }
}

void require_fast(const ModelFlags& m) {
  if (m.arith == "fast" && m.spec == "none") return;
  throw Error({.code = "usage.arith",
               .expected = "--arith fast and --spec none: serve knows no other yet",
               .found = fmt::format("--arith {} --spec {}", m.arith, m.spec)});
}

std::unique_ptr<ChatPrompt> chat_prompt(const Model& model, const Options& o) {
  const std::string source = o.template_file.empty() ? template_named(o.chat_template)
                                                     : read_file(o.template_file, kMaxTemplateBytes);
  if (source.empty() && !model.file().text("tokenizer.chat_template")) return nullptr;
  return std::make_unique<ChatPrompt>(model, source);
}

// A line for each request, to the file and, where it was asked for, to standard error.
std::function<void(const std::string&)> logger(const Options& o) {
  std::shared_ptr<std::FILE> file;
  if (!o.log_file.empty()) {
    file.reset(std::fopen(o.log_file.c_str(), "ae"), [](std::FILE* f) {
      if (f) std::fclose(f);
    });
    if (!file) {
      throw Error({.code = "file.open",
                   .found = std::strerror(errno),
                   .where = {.file = o.log_file, .key = "--log-file"}});
    }
  }
  if (!file && !o.verbose) return {};
  return [file, verbose = o.verbose](const std::string& line) {
    if (file) fmt::print(file.get(), "{}\n", line), std::fflush(file.get());
    if (verbose) fmt::print(stderr, "{}\n", line);
  };
}

// The server's threads while the model is loaded here.
class Running {
 public:
  explicit Running(server::Server& server)
      : server_(server), ended_(std::async(std::launch::async, [&server] { server.run(); })) {}
  ~Running() {
    if (ended_.valid()) server_.stop();
  }
  bool ended() const { return ended_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  void wait() { ended_.get(); }

 private:
  server::Server& server_;
  std::future<void> ended_;
};

// What decides the bits of an answer besides model and request (docs/numerics.md).
std::string fingerprint(const ModelFlags& m) {
  const std::string act = !m.act.empty() ? m.act : m.backend == "cpu" ? "8r" : "16";
  return fmt::format("{}-{}-{}-{}", act == "f16" ? "sm90-1" : "cpu-1", act, m.cache_type_k, m.cache_type_v);
}

// What follows from the flags alone.
void settle(Options& o) {
  require_fast(o.model);
  collect_keys(o);
  o.listen.host = o.access.host;
  o.listen.body_seconds = o.listen.write_seconds = o.timeout;
  o.listen.head_seconds = std::min(o.listen.head_seconds, o.timeout);
  o.scheduler.cache_bytes = int64_t(o.cache_mib) << 20;
}

// In a process of its own where that was asked for; and on a device, as only another process can use one that
// has failed.
void serve_in_a_child(Options& o) {
  if (!o.supervise && o.model.backend == "cpu") return;
  o.listen.socket = server::open_socket(o.listen);
  supervise();
}

void serve(Options& o) {
  settle(o);
  const GenerateOptions defaults{.n_predict = o.n_predict, .sampler = o.sampler.sampler()};
  const Json variables =
      o.template_kwargs.empty() ? Json() : parse_json(o.template_kwargs, "--chat-template-kwargs");
  serve_in_a_child(o);
  server::Server http(o.access, o.listen, o.insecure, logger(o));
  if (o.insecure && o.access.keys.empty() && !server::is_loopback(o.access.host))
    fmt::print(stderr, "warning: anybody who reaches {} may use this server\n", o.access.host);
  Running running(http);
  const std::string id = o.alias.empty() ? std::filesystem::path(o.model.path()).stem().string() : o.alias;
  fmt::print(stderr, "port {} is open while {} is loaded\n", http.port(), id);
  ProgressBar bar;
  const Model model(o.model.path(),
                    o.model.options([&, show = bar.callback()](const char* what, double share) {
                      if (running.ended()) throw Error({.code = "run.cancelled", .found = "an interrupt"});
                      show(what, share);
                    }));
  model.tokenizer();
  const std::unique_ptr<ChatPrompt> chat = chat_prompt(model, o);
  RunnerOptions alone = o.model.runner(nullptr);
  std::atomic<bool> lost = false;
  o.scheduler.device_lost = [&lost] { lost = true, std::raise(SIGTERM); };
  Scheduler scheduler(model, alone, o.scheduler);
  bar.erase();
  server::Formats formats(model.tokenizer());
  alone.n_ctx = int(scheduler.n_ctx());
  server::Embedder embedder(model, scheduler, alone, o.pooling == "last" ? Pooling::last : Pooling::mean,
                            o.scheduler.queue);
  ServeInstrument instrument(model, alone);
  server::FileHash file_hash(model);
  server::Aside aside(kMaxInstrumentQueue);
  http.open({.model = model,
             .scheduler = scheduler,
             .chat = chat.get(),
             .formats = &formats,
             .embedder = &embedder,
             .instrument = &instrument,
             .file_hash = &file_hash,
             .aside = &aside,
             .model_id = id,
             .fingerprint = fingerprint(o.model),
             .defaults = defaults,
             .random_seed = o.sampler.seed < 0,
             .cache_prompt = o.cache_prompt,
             .variables = variables,
             .started = std::time(nullptr),
             .slots_shown = o.slots,
             .metrics_shown = o.metrics});
  if (!chat) fmt::print(stderr, "warning: the model has no chat template; see --chat-template-file\n");
  fmt::print(stderr, "{} slots of {} tokens; {} MiB of earlier texts are kept (--cache-ram)\n",
             o.scheduler.slots, scheduler.n_ctx(), o.cache_mib);
  fmt::print(stderr, "serving {} at http://{}:{}\n", id, o.access.host, http.port());
  running.wait();
  aside.stop();
  scheduler.cancel_all();
  if (lost) throw ExitStatus{kExitDevice};
}

}  // namespace

void add_serve(CLI::App& root) {
  CLI::App* c = root.add_subcommand("serve", "Answer over HTTP: OpenAI's and Anthropic's APIs and a web page")
                    ->alias("server");
  auto o = std::make_shared<Options>();
  o->model.add(c);
  flag(c, "--host", o->access.host, "Address to listen at; others than this machine's need a key")
      ->capture_default_str();
  flag(c, "--port", o->listen.port, "Port; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  flag(c, "--api-key", o->access.keys, "Key that requests must carry; may be repeated")
      ->allow_extra_args(false);
  flag(c, "--api-key-file", o->key_file, "File with a key a line, mode 0600");
  flag(c, "--insecure-no-auth", o->insecure, "Listen beyond this machine without a key");
  flag(c, "--allow-host", o->access.allow_hosts, "Host name that requests may name; may be repeated")
      ->allow_extra_args(false);
  flag(c, "--cors-origins", o->access.cors_origins, "Origin whose pages may ask; may be repeated")
      ->allow_extra_args(false);
  flag(c, "-a,--alias", o->alias, "The model's name in the API; default: the file's name");
  flag(c, "--parallel", o->scheduler.slots, "Answers under way at the same time (-np)")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  flag(c, "--queue", o->scheduler.queue, "Answers that may wait for a slot")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  flag(c, "--cache-ram", o->cache_mib, "MiB of earlier texts' keys and values to keep (-cram); 0: none")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  flag(c, "--drain-timeout", o->listen.drain_seconds, "Seconds that running answers have after SIGTERM")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  flag(c, "--chat-template", o->chat_template, "Template's text, or chatml, instead of the model's own");
  flag(c, "--chat-template-file", o->template_file, "File with a template instead")
      ->excludes("--chat-template");
  flag(c, "--chat-template-kwargs", o->template_kwargs, "JSON object with more variables of the template");
  flag(c, "-n,--predict,--n-predict", o->n_predict,
       "Tokens of an answer where the request does not say; -1: no limit")
      ->check(CLI::Range(-1, 1 << 30))
      ->capture_default_str();
  o->sampler.add(c);
  flag(c, "--cache-prompt,!--no-cache-prompt", o->cache_prompt, "Begin where an earlier text agrees (on)");
  flag(c, "--pooling", o->pooling, "How the tokens of a text become one embedding")
      ->check(CLI::IsMember({"mean", "last"}))
      ->capture_default_str();
  flag(c, "--timeout", o->timeout, "Seconds for a body, and for a client that does not read (-to)")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  flag(c, "--max-time", o->scheduler.max_seconds, "Seconds of an answer; 0: no limit")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  flag(c, "--supervise", o->supervise,
       "Serve in a child process, and start another when it is killed; always so on a device");
  flag(c, "--metrics", o->metrics, "Serve /metrics");
  flag(c, "--slots,!--no-slots", o->slots, "Serve /slots (on)");
  flag(c, "--log-file", o->log_file, "Append a line of JSON for each request; never keys or texts");
  flag(c, "-v,--verbose", o->verbose, "The same lines to standard error");
  c->callback([o] { serve(*o); });
}

}  // namespace plumb
