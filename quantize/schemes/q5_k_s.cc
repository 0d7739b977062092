// llama.cpp's Q5_K_S.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_q5_k_s();
const Scheme& scheme_q5_k_s() {
  static const Scheme scheme = {"q5_k_s", "5-bit super-blocks (5.5 bits a weight), head in q6_k",
                                DType::kQ5_K, 16};
  return scheme;
}

}  // namespace slmc
