// --mpi: the processes that mpirun started share one model. The first one does what the command does; the
// others compute their parts.
#pragma once

#include <functional>
#include <set>

#include "app/flags.h"
#include "base/comm.h"

namespace plumb {

struct MpiFlag {
  bool on = false;
  CLI::App* command = nullptr;

  void add(CLI::App* c);

  /// Values of a model, besides its output, of which the first rank needs every row whole.
  using Wanted = std::function<std::set<Value>(const Program&)>;

  /// Without --mpi: lead(null). With it rank 0 leads and the others follow; any failure ends all of them.
  /// Throws Error "usage.mpi".
  void run(
      const ModelFlags& flags, const std::function<void(Comm*)>& lead,
      const Wanted& wanted = [](const Program&) { return std::set<Value>(); }) const;
};

/// The model becomes the rank's part of it, if there are ranks. Throws Error "usage.mpi" on every rank unless
/// all have the same model and flags that make the same bits.
void share_model(
    Model& model, const ModelFlags& flags, Comm* comm,
    const MpiFlag::Wanted& wanted = [](const Program&) { return std::set<Value>(); });

}  // namespace plumb
