#include "compress/torch/device.h"

#include <torch/headeronly/version.h>

namespace slmc::libtorch {
namespace {

/// LibTorch prints to stderr why it sees no GPU; what we say is in the error.
class Silent : public c10::WarningHandler {
 public:
  void process(const c10::Warning&) override {}
};

}  // namespace

at::Device device_from_name(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  SLMC_CHECK(name == "cuda" || name.starts_with("cuda:"), "devices are cpu, cuda and cuda:N");
  const at::CUDAHooksInterface& hooks = at::detail::getCUDAHooks();
  if (!hooks.hasCUDART())
    throw_unsupported(cat("--device ", name, ": this LibTorch (", TORCH_VERSION,
                          ") was built without CUDA; name one that has it with --torch DIR, or "
                          "leave --device out"));
  Silent silent;
  const c10::WarningUtils::WarningHandlerGuard quiet(&silent);
  const int count = hooks.deviceCount();
  if (count == 0)
    throw_unsupported(cat("--device ", name,
                          ": this machine has no GPU that CUDA can use (nvidia-smi shows whether "
                          "the driver sees one); leave --device out"));
  const int index = name == "cuda" ? 0 : std::stoi(name.substr(5));
  if (index >= count)
    throw_unsupported(cat("--device ", name, ": this machine has cuda:0",
                          count > 1 ? cat(" to cuda:", count - 1) : " only"));
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

at::Device device_of(const Context& context) {
  const at::Device first = device_from_name(context.device);
  if (context.device != "cuda") return first;
  const int mine = context.ranks.local_rank % at::detail::getCUDAHooks().deviceCount();
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(mine));
}

}  // namespace slmc::libtorch
