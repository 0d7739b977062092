// Every matrix in f32.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_f32();
const Scheme& scheme_f32() {
  static const Scheme scheme = {"f32", "every matrix in f32", DType::kF32, 0};
  return scheme;
}

}  // namespace slmc
