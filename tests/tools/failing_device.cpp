// libplumb_cuda.so on a processor, whose kernels fail at the token that $FAILING_TOKEN names, and from then
// on everything does, as on a device: no later call of the process succeeds, opening it again included.
#include <cstdlib>

#define plumb_cuda_api right_cuda_api
#include "cuda/device.cu"
#undef plumb_cuda_api

namespace plumb::cuda {
namespace {

bool lost = false;
const char* const kLost = "unspecified launch failure";

const char* failing_open(int device, Context** out, DeviceInfo* info) {
  return lost ? "CUDA-capable device(s) is/are busy or unavailable"
              : right_cuda_api()->open(device, out, info);
}
const char* failing_embed(Context* c, const EmbedOp& op) {
  static const int kToken = std::atoi(std::getenv("FAILING_TOKEN"));
  for (int i = 0; i < op.n; ++i) lost = lost || op.tokens[i] == kToken;
  return lost ? kLost : right_cuda_api()->embed(c, op);
}
const char* failing_run(Context* c, Graph* graph) { return lost ? kLost : right_cuda_api()->run(c, graph); }
const char* failing_upload(Context* c, void* to, const void* from, int64_t bytes) {
  return lost ? kLost : right_cuda_api()->upload(c, to, from, bytes);
}
const char* failing_download(Context* c, void* to, const void* from, int64_t bytes) {
  return lost ? kLost : right_cuda_api()->download(c, to, from, bytes);
}

}  // namespace
}  // namespace plumb::cuda

extern "C" __attribute__((visibility("default"))) const plumb::cuda::Api* plumb_cuda_api() {
  static plumb::cuda::Api api = *right_cuda_api();
  api.open = plumb::cuda::failing_open, api.embed = plumb::cuda::failing_embed;
  api.run = plumb::cuda::failing_run;
  api.upload = plumb::cuda::failing_upload, api.download = plumb::cuda::failing_download;
  return &api;
}
