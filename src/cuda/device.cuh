// The library's context, and what all kernels share: dependent launches, sums over a warp and a block in a fixed order.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/api.h"

namespace plumb::cuda {

struct Context {
  int device = 0, processors = 0, major = 0;
  int warpgroups = 0;  // whether the code that runs there multiplies by warpgroups: sm_90a's does, what is made of PTX does not
  cudaStream_t stream = nullptr;
  cudaEvent_t mark = nullptr;
};

constexpr int kThreads = 512;

inline const char* text(cudaError_t e) { return e == cudaSuccess ? nullptr : cudaGetErrorString(e); }

template <class... P, class... A>
const char* launch_any(Context* c, bool may_start_early, void (*kernel)(P...), dim3 grid, int threads, int shared, A... args) {
  if (const cudaError_t e = cudaSetDevice(c->device); e != cudaSuccess) return text(e);  // a thread may serve several
  if (shared > 40 * 1024) {  // with what kernels declare themselves, perhaps more than the 48 KB that need no asking
    const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (e != cudaSuccess) return text(e);
  }
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = dim3(unsigned(threads)), config.dynamicSmemBytes = size_t(shared);
  config.stream = c->stream, config.attrs = &early, config.numAttrs = may_start_early && c->major >= 9 ? 1 : 0;
  return text(cudaLaunchKernelEx(&config, kernel, P(args)...));
}

/// Launches behind the kernel before it: the new one may start early and waits where it calls wait_for_predecessor().
template <class... P, class... A>
const char* launch(Context* c, void (*kernel)(P...), dim3 grid, int threads, int shared, A... args) {
  return launch_any(c, true, kernel, grid, threads, shared, args...);
}

/// Launches behind everything that the stream waits for, other devices' work included.
template <class... P, class... A>
const char* launch_late(Context* c, void (*kernel)(P...), dim3 grid, int threads, int shared, A... args) {
  return launch_any(c, false, kernel, grid, threads, shared, args...);
}

#ifdef __CUDACC__
// A kernel's shared memory of a size that the launch says. (Names differ by kernel: one extern array has one type.)
#ifdef PLUMB_CUDA_ON_CPU
#define PLUMB_SHARED(type, name) type* name = reinterpret_cast<type*>(on_cpu::block.dynamic_shared.data())
inline void wait_for_predecessor() {}
inline void let_successor_start() {}
#else
#define PLUMB_SHARED(type, name) extern __shared__ __align__(16) type name[]
__device__ inline void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900  // older devices start a kernel when the one before has ended
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void let_successor_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#endif

/// 2^x, to the device's own accuracy (2 units in the last place).
__device__ inline float exp2_fast(float x) {
#ifdef PLUMB_CUDA_ON_CPU
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

/// The pages of token t's sequence.
__device__ inline uint8_t* const* table_of(const Pages& pages, int t) {
  return pages.tables + (pages.sequences ? int64_t(pages.sequences[t]) * pages.stride : 0);
}

__device__ inline float warp_sum(float v) {
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  return v;
}
__device__ inline float warp_max(float v) {
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
  return v;
}

#endif

const char* embed(Context*, const EmbedOp&);
const char* row(Context*, const RowOp&);
const char* linear(Context*, const LinearOp&);
const char* fast_linear(Context*, const LinearOp&);
const char* float_linear(Context*, const LinearOp&);
const char* mma_gemm(Context*, const LinearOp&);
const char* half_gemm(Context*, const LinearOp&);
const char* f32_gemm(Context*, const LinearOp&);
const char* code_gemm(Context*, const LinearOp&);
const char* few_linear(Context*, const LinearOp&);
const char* few_own_linear(Context*, const LinearOp&);
const char* round_rows(Context*, const RoundOp&);
const char* to_half(Context*, const HalfOp&);
const char* heads(Context*, const HeadsOp&);
const char* attention(Context*, const AttentionOp&);
const char* prompt_attention(Context*, const AttentionOp&);
const char* half_attention(Context*, const AttentionOp&);
const char* tile_attention(Context*, const AttentionOp&);
const char* half_decode(Context*, const AttentionOp&);
const char* glu(Context*, const GluOp&);
const char* deliver(Context*, const DeliverOp&);
const char* gather(Context*, const GatherOp&);

}  // namespace plumb::cuda
