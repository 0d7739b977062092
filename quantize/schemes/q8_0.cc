// llama.cpp's Q8_0: every matrix in q8_0, head and embedding too.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_q8_0();
const Scheme& scheme_q8_0() {
  static const Scheme scheme = {"q8_0", "8-bit blocks of 32, every matrix (8.5 bits a weight)",
                                DType::kQ8_0, 7};
  return scheme;
}

}  // namespace slmc
