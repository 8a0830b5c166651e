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
  return {.devices = options.devices,
          .n_ctx = n_ctx,
          .max_tokens = int(std::min<int64_t>(options.n_ubatch, n_ctx)),
          .kv_f32 = options.kv.k == KvType::f32 || options.arith == Arith::f32,
          .f32 = options.arith == Arith::f32,
          .f16 = options.cuda_f16,
          .rounding = options.rounding,
          .fuse = options.fuse,
          .self_test = options.self_test,
          .api = options.cuda_api};
}

bool may_fall_back(const RunnerOptions& options, const Error& error) {
  const std::string& code = error.code();
  const bool of_device = code.rfind("cuda.", 0) == 0 || code == "memory.device" || code == "usage.backend" ||
                         code == "usage.device";
  return options.fallback && options.backend == Backend::cuda && of_device;
}

RunnerOptions on_cpu_instead(const RunnerOptions& asked, const Error& error) {
  RunnerOptions options = asked;
  options.backend = Backend::cpu, options.device_layers = -1, options.fit = options.cuda_f16 = false;
  if (asked.note) asked.note(fmt::format("runs on the CPU instead, as --fallback allows: {}", error.what()));
  return options;
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
