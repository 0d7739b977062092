// llama.cpp's Q5_1.
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_q5_1();
const Scheme& scheme_q5_1() {
  static const Scheme scheme = {
      "q5_1", "5-bit blocks of 32 with a minimum (6 bits a weight), head in q6_k", DType::kQ5_1, 9};
  return scheme;
}

}  // namespace slmc
