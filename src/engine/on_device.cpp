#include "engine/on_device.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "engine/cuda_hybrid.h"

namespace plumb {

int64_t context_of(const Model& model, const RunnerOptions& options) {
  return options.n_ctx > 0 ? options.n_ctx : model.program().n_ctx_train;
}

CudaOptions cuda_options(const Model& model, const RunnerOptions& options) {
  const int64_t n_ctx = context_of(model, options);
  return {.device = options.device,
          .n_ctx = n_ctx,
          .max_tokens = int(std::min<int64_t>(options.n_ubatch, n_ctx)),
          .kv_f32 = options.kv.k == KvType::f32 || options.arith == Arith::f32,
          .f32 = options.arith == Arith::f32,
          .f16 = options.cuda_f16,
          .rounding = options.rounding,
          .fuse = options.fuse,
          .api = options.cuda_api};
}

std::shared_ptr<const CudaModel> whole_model_on_device(const Model& model, const RunnerOptions& options) {
  const Program& program = model.program();
  CudaOptions cuda = cuda_options(model, options);
  cuda.n_ctx = std::min<int64_t>(cuda.n_ctx, 256);  // sequences take more as they grow
  int layers = options.device_layers < 0 ? program.n_layer : options.device_layers;
  if (options.fit) layers = fit_layers(program, cuda).layers;
  if (layers < program.n_layer) {
    throw Error(
        {.code = "usage.backend",
         .expected = fmt::format("all {} layers on the device, for several sequences", program.n_layer),
         .found = fmt::format("{}{}", layers, options.fit ? ", as many as fit" : ""),
         .where = {.key = "--n-gpu-layers"},
         .remedy = "--backend cpu"});
  }
  return model.on_device(cuda);
}

}  // namespace plumb
