// Devices by the names that --device takes.
#pragma once

#include <string>

#include "compress/torch/precompiled.h"

namespace slmc::libtorch {

/// "cpu", "cuda" (the first GPU) or "cuda:N". Throws Error(kUnsupported) in one line that says what
/// is missing: CUDA in this LibTorch, a GPU, or that GPU.
at::Device device_from_name(const std::string& name);

}  // namespace slmc::libtorch
