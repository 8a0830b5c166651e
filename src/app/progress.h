// A bar on standard error for whatever takes longer than 300 ms; nothing where that is no terminal.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "engine/model.h"

namespace plumb {

class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar() { erase(); }

  /// At most ten redraws a second; erased when the share reaches 1.
  void show(const char* what, double share);
  void erase();
  /// What stands behind the share from now on: bytes, tokens per second.
  void explain(std::function<std::string(double share)> detail) { detail_ = std::move(detail); }
  Progress callback() {
    return [this](const char* what, double share) { show(what, share); };
  }

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_, drawn_ = false, running_ = false;
  Clock::time_point start_, last_;
  std::function<std::string(double share)> detail_ = [](double) { return std::string(); };
};

}  // namespace plumb
