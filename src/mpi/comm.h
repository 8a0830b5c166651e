// The processes that mpirun started, as ranks.
#pragma once

#include <memory>

#include "base/comm.h"

namespace plumb {

namespace mpi {
struct Api;
}

class MpiComm : public Comm {
 public:
  /// Once per process. Throws Error "usage.mpi" where libplumb_mpi.so or an MPI is missing.
  static std::unique_ptr<MpiComm> start();
  /// Waits for all other ranks to end too.
  ~MpiComm() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_gather(const void* mine, void* all, std::span<const int64_t> bytes) override;
  void broadcast(void* data, int64_t bytes) override;

  /// Ends the processes of all ranks.
  [[noreturn]] void abort(int status) const;

 private:
  explicit MpiComm(const mpi::Api& api) : api_(api) {}
  const mpi::Api& api_;
  int rank_ = 0, size_ = 1;
};

}  // namespace plumb
