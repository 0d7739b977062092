// Every matrix in f32.
#include "quantize/scheme.h"

namespace slmc {
namespace {

TypeChoice choose(const TensorInfo&, const Architecture&) {
  return {DType::kF32, "scheme f32", false};
}

}  // namespace

const Scheme& scheme_f32();
const Scheme& scheme_f32() {
  static const Scheme scheme = {"f32", "every matrix in f32", &choose};
  return scheme;
}

}  // namespace slmc
