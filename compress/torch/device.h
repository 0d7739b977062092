// Devices by the names that --device takes.
#pragma once

#include <string>

#include "compress/core/error.h"
#include "compress/core/stage.h"
#include "compress/core/text.h"
#include "compress/torch/precompiled.h"

namespace slmc::libtorch {

/// "cpu", "cuda" (the first GPU) or "cuda:N". Throws Error(kUnsupported) in one line that says what
/// is missing: CUDA in this LibTorch, a GPU, or that GPU.
at::Device device_from_name(const std::string& name);
/// The device of this process: where several on a machine were told "cuda", its GPUs in turn.
at::Device device_of(const Context& context);

/// Runs `body`; a device whose memory is full is Error(kResources), with what might help.
template <typename Body>
auto within_memory(const std::string& device, const char* advice, const Body& body) {
  try {
    return body();
  } catch (const c10::OutOfMemoryError&) {
    throw_resources(cat("--device ", device, ": the device's memory is full; ", advice));
  }
}

}  // namespace slmc::libtorch
