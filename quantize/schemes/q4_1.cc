// llama.cpp's Q4_1.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_q4_1();
const Scheme& scheme_q4_1() {
  static const Scheme scheme = {
      "q4_1", "4-bit blocks of 32 with a minimum (5 bits a weight), head in q6_k", DType::kQ4_1, 3};
  return scheme;
}

}  // namespace slmc
