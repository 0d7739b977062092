// Every matrix in bf16.
#include "quantize/scheme.h"

namespace slmc {
namespace {

TypeChoice choose(const TensorInfo&, const Architecture&) {
  return {DType::kBF16, "scheme bf16", false};
}

}  // namespace

const Scheme& scheme_bf16();
const Scheme& scheme_bf16() {
  static const Scheme scheme = {"bf16", "every matrix in bf16", &choose};
  return scheme;
}

}  // namespace slmc
