// llama.cpp's Q8_0: every matrix in q8_0, head and embedding too.
#include "quantize/scheme.h"

namespace slmc {
namespace {

TypeChoice choose(const TensorInfo& tensor, const Architecture&) {
  return fitting_or_f16(DType::kQ8_0, "scheme q8_0", tensor);
}

}  // namespace

const Scheme& scheme_q8_0();
const Scheme& scheme_q8_0() {
  static const Scheme scheme = {"q8_0", "8-bit blocks of 32, every matrix (8.5 bits a weight)",
                                &choose};
  return scheme;
}

}  // namespace slmc
