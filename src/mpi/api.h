// What libplumb_mpi.so offers: C functions, so that the program starts where there is no MPI. Those that
// return text return null, or what went wrong.
#pragma once

#include <cstdint>

namespace plumb::mpi {

constexpr int kApiVersion = 1;

struct Api {
  int version;
  const char* (*start)(int* rank, int* size);
  const char* (*all_gather)(const void* mine, void* all, const int64_t* bytes);  // bytes: by rank
  const char* (*broadcast)(void* data, int64_t bytes);                           // what rank 0 gives
  void (*finish)();
  void (*abort)(int status);  // ends all ranks
};

}  // namespace plumb::mpi

extern "C" __attribute__((visibility("default"))) const plumb::mpi::Api* plumb_mpi_api();
