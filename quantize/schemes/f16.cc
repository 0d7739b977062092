// Every matrix in f16.
#include "quantize/scheme.h"

namespace slmc {
namespace {

TypeChoice choose(const TensorInfo&, const Architecture&) {
  return {DType::kF16, "scheme f16", false};
}

}  // namespace

const Scheme& scheme_f16();
const Scheme& scheme_f16() {
  static const Scheme scheme = {"f16", "every matrix in f16", &choose};
  return scheme;
}

}  // namespace slmc
