#include "compress/core/torch_module.h"

#include "compress/core/error.h"

namespace slmc {

std::string torch_unavailable_reason(const Context&) { return "this build has no LibTorch module"; }

TorchModule& torch_module(const Context& context) { throw_unsupported(torch_unavailable_reason(context)); }

}  // namespace slmc
