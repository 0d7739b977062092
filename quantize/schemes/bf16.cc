// Every matrix in bf16.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_bf16();
const Scheme& scheme_bf16() {
  static const Scheme scheme = {"bf16", "every matrix in bf16", DType::kBF16, 32};
  return scheme;
}

}  // namespace slmc
