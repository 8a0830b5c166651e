// The entry point of libplumb_mpi.so, which alone knows MPI (MPI Forum, MPI: A Message-Passing Interface
// Standard, 3.1).
#include <mpi.h>

#include <climits>
#include <vector>

#include "mpi/api.h"

namespace plumb::mpi {
namespace {

const char* text(int error) {
  static char message[MPI_MAX_ERROR_STRING + 1];
  if (error == MPI_SUCCESS) return nullptr;
  int length = 0;
  MPI_Error_string(error, message, &length);
  message[length] = 0;
  return message;
}

const char* start(int* rank, int* size) {
  int level = 0;
  if (const char* e = text(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level))) return e;
  if (level < MPI_THREAD_SERIALIZED) return "this MPI serves one thread only";
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, rank);
  MPI_Comm_size(MPI_COMM_WORLD, size);
  return nullptr;
}

const char* all_gather(const void* mine, void* all, const int64_t* bytes) {
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> counts(static_cast<size_t>(size)), places(static_cast<size_t>(size));
  int64_t sum = 0;
  for (int r = 0; r < size; sum += bytes[r++]) {
    if (bytes[r] > INT_MAX - sum) return "more than 2 GB at once: a smaller -ub needs less";
    counts[size_t(r)] = int(bytes[r]), places[size_t(r)] = int(sum);
  }
  return text(MPI_Allgatherv(mine, counts[size_t(rank)], MPI_BYTE, all, counts.data(), places.data(),
                             MPI_BYTE, MPI_COMM_WORLD));
}

const char* broadcast(void* data, int64_t bytes) {
  if (bytes > INT_MAX) return "more than 2 GB at once";
  return text(MPI_Bcast(data, int(bytes), MPI_BYTE, 0, MPI_COMM_WORLD));
}

void finish() { MPI_Finalize(); }
void abort_all(int status) { MPI_Abort(MPI_COMM_WORLD, status); }

constexpr Api kApi = {kApiVersion, start, all_gather, broadcast, finish, abort_all};

}  // namespace
}  // namespace plumb::mpi

extern "C" const plumb::mpi::Api* plumb_mpi_api() { return &plumb::mpi::kApi; }
