// llama.cpp's Q6_K: every matrix in q6_k.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_q6_k();
const Scheme& scheme_q6_k() {
  static const Scheme scheme = {"q6_k", "6-bit super-blocks, every matrix (6.56 bits a weight)",
                                DType::kQ6_K, 18};
  return scheme;
}

}  // namespace slmc
