// The entry point of libplumb_cuda.so: devices, memory, graphs.
#include <cstring>

#include "cuda/device.cuh"
#include "cuda/tile.cuh"

namespace plumb::cuda {

struct Graph {
  cudaGraphExec_t exec = nullptr;
};

namespace {

const char* count(int* devices) { return text(cudaGetDeviceCount(devices)); }

__global__ void ask_for_warpgroups(int* has) {
#ifdef PLUMB_WGMMA
  *has = 1;
#else
  *has = 0;
#endif
}

const char* find_warpgroups(Context* c) {
  int* has = nullptr;
  const char* e = text(cudaMalloc(reinterpret_cast<void**>(&has), sizeof(int)));
  if (!e) e = launch(c, ask_for_warpgroups, dim3(1), 1, 0, has);
  if (!e) e = text(cudaMemcpyAsync(&c->warpgroups, has, sizeof(int), cudaMemcpyDeviceToHost, c->stream));
  if (!e) e = text(cudaStreamSynchronize(c->stream));
  cudaFree(has);
  return e;
}

const char* open(int device, Context** out, DeviceInfo* info) {
  cudaDeviceProp p{};
  if (const char* e = text(cudaGetDeviceProperties(&p, device))) return e;
  if (const char* e = text(cudaSetDevice(device))) return e;
  size_t free = 0, total = 0;
  if (const char* e = text(cudaMemGetInfo(&free, &total))) return e;
  std::strncpy(info->name, p.name, sizeof(info->name) - 1);
  info->bytes = int64_t(total), info->free_bytes = int64_t(free);
  info->major = p.major, info->minor = p.minor, info->processors = p.multiProcessorCount;
  Context* c = new Context{device, p.multiProcessorCount, p.major, 0, nullptr, nullptr};
  const char* e = text(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
  if (!e) e = text(cudaEventCreateWithFlags(&c->mark, cudaEventDisableTiming));
  if (!e) e = find_warpgroups(c);
  if (e) {
    delete c;
    return e;
  }
  *out = c;
  return nullptr;
}

void close(Context* c) {
  cudaSetDevice(c->device);
  cudaStreamSynchronize(c->stream);  // after a failed kernel every call fails until the process ends, also these
  cudaEventDestroy(c->mark);
  cudaStreamDestroy(c->stream);
  delete c;
}

const char* memory(Context* c, int64_t* free_bytes) {
  size_t free = 0, total = 0;
  if (const char* e = text(cudaSetDevice(c->device))) return e;
  const char* e = text(cudaMemGetInfo(&free, &total));
  *free_bytes = int64_t(free);
  return e;
}

const char* allocate(Context* c, int64_t bytes, void** out) {
  if (const char* e = text(cudaSetDevice(c->device))) return e;
  return text(cudaMalloc(out, size_t(bytes)));
}
void release(Context*, void* p) { cudaFree(p); }

const char* allocate_host(Context*, int64_t bytes, void** out) { return text(cudaMallocHost(out, size_t(bytes))); }
void release_host(Context*, void* p) { cudaFreeHost(p); }

const char* upload(Context* c, void* to, const void* from, int64_t bytes) {
  if (const char* e = text(cudaSetDevice(c->device))) return e;  // every call begins here, on whatever thread
  if (const char* e = text(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyHostToDevice, c->stream))) return e;
  return bytes > (1 << 16) ? text(cudaStreamSynchronize(c->stream)) : nullptr;  // small ones are staged before the call returns
}

const char* download(Context* c, void* to, const void* from, int64_t bytes) {
  if (const char* e = text(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToHost, c->stream))) return e;
  return text(cudaStreamSynchronize(c->stream));
}

const char* copy(Context* c, void* to, const void* from, int64_t bytes) {
  return text(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToDevice, c->stream));
}

const char* zero(Context* c, void* to, int64_t bytes) {
  if (const char* e = text(cudaSetDevice(c->device))) return e;
  return text(cudaMemsetAsync(to, 0, size_t(bytes), c->stream));
}

const char* begin(Context* c) {
  if (const char* e = text(cudaSetDevice(c->device))) return e;
  return text(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
}

const char* end(Context* c, Graph** out) {
  cudaGraph_t graph = nullptr;
  if (const char* e = text(cudaSetDevice(c->device))) return e;
  if (const char* e = text(cudaStreamEndCapture(c->stream, &graph))) return e;
  Graph* g = new Graph;
  const char* e = text(cudaGraphInstantiate(&g->exec, graph, 0));
  cudaGraphDestroy(graph);
  if (e) {
    delete g;
    return e;
  }
  *out = g;
  return nullptr;
}

const char* run(Context* c, Graph* g) {
  if (const char* e = text(cudaSetDevice(c->device))) return e;
  return text(cudaGraphLaunch(g->exec, c->stream));
}

const char* wait(Context* c) { return text(cudaStreamSynchronize(c->stream)); }

void drop(Context*, Graph* g) {
  cudaGraphExecDestroy(g->exec);
  delete g;
}

const char* reach(Context* c, Context* other) {
  if (c->device == other->device) return nullptr;
  int can = 0;
  if (const char* e = text(cudaDeviceCanAccessPeer(&can, c->device, other->device))) return e;
  if (!can) return "neither NVLink nor the bus allows it";
  if (const char* e = text(cudaSetDevice(c->device))) return e;
  const cudaError_t e = cudaDeviceEnablePeerAccess(other->device, 0);
  if (e != cudaErrorPeerAccessAlreadyEnabled) return text(e);
  cudaGetLastError();  // it is no failure of what comes next
  return nullptr;
}

const char* mark(Context* c) {
  if (const char* e = text(cudaSetDevice(c->device))) return e;
  return text(cudaEventRecord(c->mark, c->stream));
}
const char* follow(Context* c, Context* other) { return text(cudaStreamWaitEvent(c->stream, other->mark, 0)); }

void without_warpgroups(Context* c) { c->warpgroups = 0; }

constexpr Api kApi = {kApiVersion, count, open, close, memory, allocate, release, allocate_host, release_host, upload, download, copy, zero, embed, row,
                      linear, to_half, round_rows, heads, attention, glu, begin, end, run, drop, deliver, wait,
                      gather, reach, mark, follow, without_warpgroups};

}  // namespace
}  // namespace plumb::cuda

extern "C" const plumb::cuda::Api* plumb_cuda_api() { return &plumb::cuda::kApi; }
