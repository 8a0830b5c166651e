// One process that only waits, and one that serves and may die or lose its device.
#pragma once

namespace plumb {

/// Forks a child that goes on from here, and another whenever a signal has killed it (a crash, or the kernel
/// short of memory) or it has ended with kExitDevice. SIGTERM and SIGINT are passed on to it. Returns in the
/// children; in the caller it throws ExitStatus with the status of the first child that ends otherwise or was
/// asked to, or as `kSoon` of them in a row end within `kSoonSeconds` of their start. Before any thread is
/// started.
void supervise();

constexpr int kSoon = 3, kSoonSeconds = 10;

}  // namespace plumb
