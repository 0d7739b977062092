#include "compress/torch/device.h"

#include <torch/headeronly/version.h>

#include "compress/core/error.h"
#include "compress/core/text.h"

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

}  // namespace slmc::libtorch
