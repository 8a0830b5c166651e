#include "app/supervise.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "app/exit_codes.h"
#include "base/error.h"

namespace plumb {
namespace {

// Signals wait to be asked for while this lives.
class Held {
 public:
  Held() {
    ::sigemptyset(&set_);
    for (int s : {SIGTERM, SIGINT, SIGCHLD}) ::sigaddset(&set_, s);
    ::sigprocmask(SIG_BLOCK, &set_, &before_);
  }
  ~Held() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  int next() const {
    int signal = 0;
    ::sigwait(&set_, &signal);
    return signal;
  }

 private:
  sigset_t set_, before_;
};

pid_t start() {
  const pid_t parent = ::getpid(), child = ::fork();
  if (child < 0) throw Error({.code = "run.fork", .found = std::strerror(errno)});
  if (child > 0) return child;
  ::setpgid(0, 0);  // Ctrl-C reaches the parent alone, which passes it on once
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::raise(SIGTERM);  // it died before that
  return 0;
}

// How the child ended, as waitpid() says; `asked`: somebody wanted the end.
int wait_for(pid_t child, const Held& held, bool& asked) {
  for (int status = 0;;) {
    const int signal = held.next();
    if (signal != SIGCHLD) {
      asked = true;
      ::kill(child, signal);
    } else if (::waitpid(child, &status, WNOHANG) == child) {
      return status;
    }
  }
}

}  // namespace

void supervise() {
  using Clock = std::chrono::steady_clock;
  for (int soon = 0;;) {
    const Clock::time_point from = Clock::now();
    int status = 0;
    bool asked = false;
    {
      const Held held;
      const pid_t child = start();
      if (child == 0) return;
      status = wait_for(child, held, asked);
    }
    const bool exited = WIFEXITED(status);
    if (exited && (asked || WEXITSTATUS(status) != kExitDevice)) throw ExitStatus{WEXITSTATUS(status)};
    if (asked) throw ExitStatus{128 + WTERMSIG(status)};
    const double seconds = std::chrono::duration<double>(Clock::now() - from).count();
    soon = seconds < kSoonSeconds ? soon + 1 : 0;
    const bool again = soon < kSoon;
    fmt::print(
        stderr, "plumb: the serving process {} after {:.1f} s; {}\n",
        exited ? "lost its device"
               : fmt::format("was killed by signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status))),
        seconds, again ? "another is started" : "too often: see the lines above");
    if (!again) throw ExitStatus{kExitFailure};
  }
}

}  // namespace plumb
