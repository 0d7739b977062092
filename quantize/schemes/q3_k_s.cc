// llama.cpp's Q3_K_S.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_q3_k_s();
const Scheme& scheme_q3_k_s() {
  static const Scheme scheme = {"q3_k_s", "3-bit super-blocks (3.44 bits a weight), head in q6_k",
                                DType::kQ3_K, 11};
  return scheme;
}

}  // namespace slmc
