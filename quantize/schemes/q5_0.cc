// llama.cpp's Q5_0: q5_0, and with weights from statistics q5_1 in the first ffn_down.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_q5_0(const MatrixRole& role) {
  if (role.weighted && role.part == MatrixPart::kFfnDown && role.layer < role.layers / 8)
    return DType::kQ5_1;
  return DType::kQ5_0;
}

}  // namespace

const Scheme& scheme_q5_0();
const Scheme& scheme_q5_0() {
  static const Scheme scheme = {"q5_0", "5-bit blocks of 32 (5.5 bits a weight), head in q6_k",
                                DType::kQ5_0, 8, &choose_q5_0};
  return scheme;
}

}  // namespace slmc
