// Every matrix in f16.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_f16();
const Scheme& scheme_f16() {
  static const Scheme scheme = {"f16", "every matrix in f16", DType::kF16, 1};
  return scheme;
}

}  // namespace slmc
