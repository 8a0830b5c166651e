// The flags that say where a model runs, and what they make of a runner's options.
#include <numeric>

#include "app/flags.h"
#include "base/error.h"
#include "cuda/backend.h"

namespace plumb {

void ModelFlags::add_backend(CLI::App* c) {
  flag(c, "--backend", backend, "Where the model runs: cpu, cuda, or hybrid: cuda with --fit")
      ->check(CLI::IsMember({"cpu", "cuda", "hybrid"}))
      ->capture_default_str();
  flag(c, "--n-gpu-layers", n_gpu_layers,
       "The first N layers on the device, the rest on the CPU; -1: all (-ngl)")
      ->check(CLI::Range(-1, 100000))
      ->capture_default_str();
  flag(c, "--fit", fit, "As many layers on the device as fit into its free memory; says how many");
  flag(c, "--device", device,
       "Number of the CUDA device, or with --split-mode tensor several: 0,1; default: 0, or all");
  flag(c, "--split-mode", split_mode,
       "none, or tensor: every matrix is split among the devices, which changes no bit (-sm)")
      ->check(CLI::IsMember({"none", "tensor"}))
      ->capture_default_str();
}

std::vector<int> ModelFlags::devices() const {
  const bool split = split_mode == "tensor";
  std::vector<int> numbers = parse_numbers(device, "--device", "numbers of devices separated by commas");
  if (numbers.empty()) {
    numbers.resize(split ? size_t(cuda_devices()) : 1);
    std::iota(numbers.begin(), numbers.end(), 0);
  }
  if (!split && numbers.size() > 1) {
    throw Error({.code = "usage.device",
                 .expected = "one device, with --split-mode none",
                 .found = printable(device),
                 .where = {.key = "--device"},
                 .remedy = "-sm tensor splits the model among several"});
  }
  return numbers;
}

void ModelFlags::use_cuda(RunnerOptions& o) const {
  if (arith != "fast" && arith != "f32") {
    throw Error({.code = "usage.arith",
                 .expected = "fast or f32, the arithmetics of the cuda backend",
                 .found = arith,
                 .where = {.key = "--arith"}});
  }
  if (n_gpu_layers > 0 && arith == "f32") {
    throw Error({.code = "usage.value",
                 .expected = "-1, all layers on the device, or 0, none, with --arith f32",
                 .found = std::to_string(n_gpu_layers),
                 .where = {.key = "--n-gpu-layers"}});
  }
  o.note = [](const std::string& text) { std::fprintf(stderr, "plumb: %s\n", text.c_str()); };
  if (const std::string why = cuda_missing(); !why.empty()) {
    if (fallback && arith == "fast") return o.note("runs on the CPU instead, as --fallback allows: " + why);
    throw Error({.code = "usage.backend",
                 .expected = "one of the available backends: cpu",
                 .found = "cuda: " + why,
                 .where = {.key = "--backend"}});
  }
  o.backend = Backend::cuda, o.devices = devices(), o.device_layers = n_gpu_layers;
  o.fit = (fit || backend == "hybrid") && n_gpu_layers < 0;
  if (o.fit && arith == "f32") {
    throw Error({.code = "usage.arith",
                 .expected = "--arith fast with --fit: the CPU has no f32",
                 .found = arith,
                 .where = {.key = "--arith"}});
  }
  o.fallback = fallback && arith == "fast";
}

}  // namespace plumb
