// What tests of the CUDA backend share. Each exists twice: with the kernels on a processor, and on the device
// where there is one.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "cuda/library.h"

namespace plumb {

/// The parameter says whether the device is meant; skipped with the reason where there is none.
class CudaDeviceTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string why;
    api_ = GetParam() ? cuda::find_library(&why) : plumb_cuda_api();
    if (!api_) GTEST_SKIP() << "no CUDA device: " << why;
  }

  const cuda::Api* api_ = nullptr;
};

}  // namespace plumb
