#include "mpi/comm.h"

#include <cstdlib>

#include "base/error.h"
#include "base/shared_library.h"
#include "mpi/api.h"

namespace plumb {
namespace {

constexpr const char* kName = "libplumb_mpi.so";

[[noreturn]] void refuse(const std::string& why) {
  throw Error({.code = "usage.mpi",
               .expected = "MPI, with --mpi",
               .found = why,
               .remedy = "docs/mpi.md says what it needs"});
}

void check(const char* error, const char* doing) {
  if (error) throw Error({.code = "comm.failed", .expected = doing, .found = error});
}

}  // namespace

std::unique_ptr<MpiComm> MpiComm::start() {
  std::string why;
  void* library = open_shared_library(kName, true, &why);  // MPI opens parts of itself
  if (!library) refuse(why);
  const auto entry = reinterpret_cast<const mpi::Api* (*)()>(find_symbol(library, "plumb_mpi_api"));
  if (!entry || entry()->version != mpi::kApiVersion)
    refuse(std::string(kName) + " belongs to another version of plumb");
  std::unique_ptr<MpiComm> comm(new MpiComm(*entry()));
  if (const char* error = comm->api_.start(&comm->rank_, &comm->size_)) refuse(error);
  return comm;
}

MpiComm::~MpiComm() { api_.finish(); }

void MpiComm::all_gather(const void* mine, void* all, std::span<const int64_t> bytes) {
  check(api_.all_gather(mine, all, bytes.data()), "values of all ranks");
}

void MpiComm::broadcast(void* data, int64_t bytes) {
  check(api_.broadcast(data, bytes), "what the first rank says");
}

void MpiComm::abort(int status) const {
  api_.abort(status);
  std::_Exit(status);
}

}  // namespace plumb
