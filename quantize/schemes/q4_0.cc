// llama.cpp's Q4_0: q4_0, and with weights from statistics q4_1 in the first ffn_down.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_q4_0(const MatrixRole& role) {
  if (role.weighted && role.part == MatrixPart::kFfnDown && role.layer < role.layers / 8)
    return DType::kQ4_1;
  return DType::kQ4_0;
}

}  // namespace

const Scheme& scheme_q4_0();
const Scheme& scheme_q4_0() {
  static const Scheme scheme = {"q4_0", "4-bit blocks of 32 (4.5 bits a weight), head in q6_k",
                                DType::kQ4_0, 2, &choose_q4_0};
  return scheme;
}

}  // namespace slmc
