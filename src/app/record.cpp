// plumb record: runs of other engines become traces. Most engines are reached from Python: the programs of
// tools/record are part of this binary, are written to a private folder and run by python3, which has the
// terminal, the signals and the exit status as if it had been started by hand.
#include "app/record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include "app/command.h"
#include "app/exit_codes.h"
#include "app/flags.h"
#include "app/nearest.h"
#include "base/error.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

struct RecordKind {
  const char *name, *file, *what;
};

// A kind that is not Python is a subcommand of its own, added below.
constexpr RecordKind kKinds[] = {
    {"llamacpp", "llamacpp.py", "llama.cpp by llama-cpp-python, every node"},
    {"eval-callback", "eval_callback.py", "what llama-eval-callback or llama-debug printed"},
    {"http", "http_run.py", "log-probabilities from llama-server or /v1/completions"},
    {"transformers", "transformers_run.py", "Hugging Face transformers, by forward hooks"},
    {"mlx", "mlx_run.py", "mlx-lm: what every module takes and gives"},
};

struct RecordOptions {
  std::string python;
};

[[noreturn]] void cannot_write(const std::string& path) {
  throw Error({.code = "file.write",
               .expected = "to write the recorder to a temporary folder",
               .found = std::strerror(errno),
               .where = {.file = path},
               .remedy = "TMPDIR names another place"});
}

std::string interpreter(const std::string& python) {
  if (!python.empty()) return python;
  const char* chosen = std::getenv("PLUMB_PYTHON");
  return chosen && *chosen ? chosen : "python3";
}

volatile sig_atomic_t child_process = 0;

void pass_on(int signal) {
  if (child_process > 0) ::kill(pid_t(child_process), signal);
}

// While the child has the terminal: Ctrl-C reaches it directly, so it is ignored here; SIGTERM and SIGHUP may
// be meant for this process alone and are passed on.
class SignalsForChild {
 public:
  SignalsForChild() {
    struct sigaction action = {};
    for (size_t i = 0; i < std::size(kSignals); ++i) {
      action.sa_handler = kSignals[i] == SIGTERM || kSignals[i] == SIGHUP ? pass_on : SIG_IGN;
      ::sigaction(kSignals[i], &action, &before_[i]);
    }
  }
  ~SignalsForChild() { restore(); }
  void restore() const {
    for (size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  }

 private:
  static constexpr int kSignals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP};
  struct sigaction before_[std::size(kSignals)] = {};
};

// What the program ended with, as a shell would say it; 127 and errno where it could not be started.
int run_program(const std::vector<std::string>& words, int& start_error) {
  std::vector<char*> argv;
  for (const std::string& w : words) argv.push_back(const_cast<char*>(w.c_str()));
  argv.push_back(nullptr);
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) return start_error = errno, 127;
  std::fflush(nullptr);
  const SignalsForChild signals;
  const pid_t pid = ::fork();
  if (pid == 0) {
    signals.restore();
    ::execvp(argv[0], argv.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t written = ::write(report[1], &error, sizeof error);
    ::_exit(127);
  }
  const int fork_error = errno;
  ::close(report[1]);
  int status = 0;
  if (pid > 0) {
    child_process = pid;
    if (::read(report[0], &start_error, sizeof start_error) != sizeof start_error) start_error = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    child_process = 0;
  } else {
    start_error = fork_error;
  }
  ::close(report[0]);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

const RecordKind& find_kind(const CLI::App& record, const std::string& name) {
  for (const RecordKind& kind : kKinds) {
    if (name == kind.name) return kind;
  }
  std::vector<std::string> known;
  for (const RecordKind& kind : kKinds) known.emplace_back(kind.name);
  for (const CLI::App* native : record.get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(native->get_name());
  const std::vector<std::string> near = nearest(name, known, 1);
  throw Error({.code = "usage.record",
               .expected = fmt::format("one of {}", fmt::join(known, ", ")),
               .found = printable(name),
               .where = {.key = "KIND"},
               .remedy = near.empty() ? "" : fmt::format("did you mean {}?", near.front())});
}

void record(const CLI::App& command, const RecordOptions& o) {
  const std::vector<std::string> rest = command.remaining();
  if (rest.empty() || rest[0].starts_with('-')) {
    throw Error({.code = "usage.record",
                 .expected = "plumb record [--python FILE] KIND ARGS...",
                 .found = rest.empty() ? "no KIND" : printable(rest[0])});
  }
  run_recorder(find_kind(command, rest[0]).name, {rest.begin() + 1, rest.end()}, o.python);
}

}  // namespace

PrivateFolder::PrivateFolder() {
  std::error_code ignored;
  const fs::path parent = fs::temp_directory_path(ignored);
  path_ = (parent.empty() ? fs::path("/tmp") : parent) / "plumb-record-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) cannot_write(path_);
}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string PrivateFolder::add(const EmbeddedFile& file) const {
  const std::string path = path_ + "/" + std::string(file.name);
  std::ofstream out(path, std::ios::binary);
  out << file.text;
  out.close();
  if (!out) cannot_write(path);
  return path;
}

void run_recorder(const std::string& kind, const std::vector<std::string>& arguments,
                  const std::string& python) {
  const RecordKind& known = *std::find_if(std::begin(kKinds), std::end(kKinds),
                                          [&](const RecordKind& k) { return k.name == kind; });
  const PrivateFolder folder;
  std::string script;
  for (const EmbeddedFile& file : record_files()) {
    const std::string path = folder.add(file);
    if (file.name == known.file) script = path;
  }
  ::setenv("PLUMB_RECORD", fmt::format("plumb record {}", kind).c_str(), 1);
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);  // to tokenize with
  if (!program.empty()) ::setenv("PLUMB_PROGRAM", program.c_str(), 1);
  std::vector<std::string> words = {interpreter(python), "-B", script};
  words.insert(words.end(), arguments.begin(), arguments.end());
  int start_error = 0;
  const int status = run_program(words, start_error);
  if (start_error != 0) {
    throw Error({.code = "usage.python",
                 .expected = "an interpreter of Python 3.9 or later",
                 .found = fmt::format("{}: {}", printable(words[0]), std::strerror(start_error)),
                 .remedy = "install python3, or name one with --python or PLUMB_PYTHON"});
  }
  if (status != 0) throw ExitStatus{status};
}

void add_record(CLI::App& root) {
  CLI::App* c = root.add_subcommand("record", "Trace another engine");
  auto o = std::make_shared<RecordOptions>();
  flag(c, "--python", o->python, "The interpreter; default: PLUMB_PYTHON, else python3");
  std::string kinds = "KIND is one of these; 'plumb record KIND --help' says more:\n";
  for (const RecordKind& kind : kKinds) kinds += fmt::format("  {:<14}{}\n", kind.name, kind.what);
  c->footer(kinds);
  add_record_log(*c);
  c->prefix_command();  // everything from KIND on belongs to it
  c->callback([c, o] {
    if (c->get_subcommands().empty()) record(*c, *o);
  });
}

}  // namespace plumb
