// Enough of CUDA to run src/cuda/*.cu on a processor, so that their logic is tested where there is no GPU:
// the threads of a block are fibers that take turns, and give way at barriers and shuffles. Slow, in order,
// and silent about races and speed.
#pragma once

#include <ucontext.h>

#include <bit>
#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/half.h"

#define __CUDACC__ 1
#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) alignas(n)

struct uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;
inline int max(int a, int b) { return a > b ? a : b; }
inline uint32_t max(uint32_t a, uint32_t b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }

namespace on_cpu {

struct Fiber {
  ucontext_t context;
  jmp_buf at;
  std::unique_ptr<char[]> stack;
  bool started = false, done = false;
  int shuffles = 0;
};
struct Barrier {
  int waiting = 0, members = 0;
  unsigned generation = 0;
};
struct Warp {
  Barrier barrier;
  uint32_t slot[2][32][8];
};
struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier all;
  ucontext_t home;
  jmp_buf back;
  size_t now = 0;
  std::function<void()> body;
  std::vector<std::max_align_t> dynamic_shared;
};
inline Block block;
inline std::vector<std::function<void()>>* recording = nullptr;

inline void yield() {
  if (_setjmp(block.fibers[block.now].at) == 0) _longjmp(block.back, 1);
}
inline void leave(Barrier& b) {
  if (--b.members > 0 && b.waiting == b.members) b.waiting = 0, ++b.generation;
}
inline void wait(Barrier& b) {
  if (++b.waiting == b.members) {
    b.waiting = 0, ++b.generation;
    return;
  }
  for (const unsigned g = b.generation; b.generation == g;) yield();
}
inline void enter() {
  block.body();
  Fiber& f = block.fibers[block.now];
  f.done = true;
  leave(block.warps[block.now / 32].barrier);
  leave(block.all);
  _longjmp(block.back, 1);
}

/// Every lane's words, after all have given theirs; valid until the lane's next exchange but one.
inline const uint32_t (*exchange(const void* mine, size_t bytes))[8] {
  Warp& w = block.warps[block.now / 32];
  auto* slots = w.slot[block.fibers[block.now].shuffles++ % 2];
  std::memcpy(slots[block.now % 32], mine, bytes);
  wait(w.barrier);
  return slots;
}

inline void run_block(unsigned threads) {
  block.fibers.resize(threads);
  block.warps.assign((threads + 31) / 32, {});
  block.all = {0, int(threads), 0};
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& f = block.fibers[t];
    if (!f.stack) f.stack = std::make_unique<char[]>(1 << 16);
    f.started = f.done = false, f.shuffles = 0;
    ++block.warps[t / 32].barrier.members;
  }
  for (volatile bool some = true; some;) {
    some = false;
    for (volatile unsigned t = 0; t < threads; t = t + 1) {
      Fiber& f = block.fibers[t];
      if (f.done) continue;
      some = true;
      block.now = t;
      threadIdx = dim3(t, 0, 0);
      if (_setjmp(block.back) != 0) continue;
      if (f.started) _longjmp(f.at, 1);
      f.started = true;
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.get(), f.context.uc_stack.ss_size = 1 << 16,
      f.context.uc_link = nullptr;
      makecontext(&f.context, enter, 0);
      setcontext(&f.context);
    }
  }
}

inline void run_grid(dim3 grid, dim3 threads, size_t shared, std::function<void()> body) {
  block.body = std::move(body);
  block.dynamic_shared.resize(shared / sizeof(std::max_align_t) + 1);
  gridDim = grid, blockDim = threads;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) blockIdx = dim3(x, y, z), run_block(threads.x);
    }
  }
}

}  // namespace on_cpu

inline void __syncthreads() { on_cpu::wait(on_cpu::block.all); }
inline void __syncwarp() { on_cpu::wait(on_cpu::block.warps[on_cpu::block.now / 32].barrier); }
inline void __threadfence() {}
template <class T>
T __shfl_xor_sync(unsigned, T v, int mask) {
  const uint32_t(*all)[8] = on_cpu::exchange(&v, sizeof(v));
  std::memcpy(&v, all[(on_cpu::block.now % 32) ^ size_t(mask)], sizeof(v));
  return v;
}
inline unsigned __ballot_sync(unsigned, bool mine) {
  const uint32_t(*all)[8] = on_cpu::exchange(&mine, sizeof(mine));
  unsigned out = 0;
  for (unsigned i = 0; i < 32; ++i) out |= (all[i][0] & 1u) << i;
  return out;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += int(int8_t(a >> i)) * int(int8_t(b >> i));
  return c;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float __uint_as_float(uint32_t u) { return std::bit_cast<float>(u); }
inline int __float2int_rn(float x) { return std::isnan(x) ? 0 : int(std::lrint(x)); }
inline unsigned atomicInc(unsigned* p, unsigned most) {
  const unsigned old = *p;
  *p = old >= most ? 0 : old + 1;
  return old;
}

// The host's side.
enum cudaError_t { cudaSuccess, cudaErrorUnknown, cudaErrorPeerAccessAlreadyEnabled };
enum {
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaStreamNonBlocking,
  cudaEventDisableTiming,
  cudaStreamCaptureModeThreadLocal,
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaLaunchAttributeProgrammaticStreamSerialization
};
using cudaStream_t = void*;
using cudaEvent_t = void*;
using cudaGraph_t = std::vector<std::function<void()>>*;
using cudaGraphExec_t = cudaGraph_t;
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
};
struct cudaLaunchAttribute {
  int id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  int numAttrs;
};
inline const char* cudaGetErrorString(cudaError_t) { return "failed"; }
inline cudaError_t cudaGetDeviceCount(int* n) { return *n = 4, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  return *p = {"threads as fibers", 9, 0, 2}, cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceReset() { return cudaSuccess; }
inline cudaError_t cudaMemGetInfo(size_t* a, size_t* b) { return *a = *b = size_t(1) << 34, cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, int) { return *s = nullptr, cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
// Everything is done as soon as it is asked for, on whatever device: nothing waits for events.
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, int) { return *e = nullptr, cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, int) { return cudaSuccess; }
inline cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 1, cudaSuccess; }
inline cudaError_t cudaDeviceEnablePeerAccess(int, int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaMalloc(void** p, size_t n) {
  return *p = std::aligned_alloc(256, (n + 255) / 256 * 256), cudaSuccess;
}
inline cudaError_t cudaFree(void* p) { return std::free(p), cudaSuccess; }
inline cudaError_t cudaMallocHost(void** p, size_t n) { return cudaMalloc(p, n); }
inline cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, int, cudaStream_t) {
  return std::memcpy(to, from, n), cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int v, size_t n, cudaStream_t) {
  return std::memset(to, v, n), cudaSuccess;
}
template <class K>
cudaError_t cudaFuncSetAttribute(K, int, int) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
  on_cpu::recording = new std::vector<std::function<void()>>;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* g) {
  return *g = std::exchange(on_cpu::recording, nullptr), cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t g, int) {
  return *e = new std::vector<std::function<void()>>(*g), cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return delete g, cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t) {
  for (const auto& launch : *g) launch();
  return cudaSuccess;
}
template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(P...), A... args) {
  auto go = [grid = c->gridDim, threads = c->blockDim, shared = c->dynamicSmemBytes, kernel, args...] {
    on_cpu::run_grid(grid, threads, shared, [=] { kernel(args...); });
  };
  if (on_cpu::recording) {
    on_cpu::recording->push_back(go);
  } else {
    go();
  }
  return cudaSuccess;
}
