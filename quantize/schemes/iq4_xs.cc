// llama.cpp's IQ4_XS: exceptions as in IQ4_NL.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_iq4_xs(const MatrixRole& role) {
  if (role.part == MatrixPart::kValues && role.heads_per_kv >= 4) return DType::kQ5_K;
  if (role.part == MatrixPart::kFfnDown && role.layer < role.layers / 8 && !role.weighted)
    return DType::kQ5_K;
  return DType::kIQ4_XS;
}

}  // namespace

const Scheme& scheme_iq4_xs();
const Scheme& scheme_iq4_xs() {
  static const Scheme scheme = {
      "iq4_xs", "4-bit uneven steps in super-blocks (4.25 bits a weight), head in q6_k",
      DType::kIQ4_XS, 30, &choose_iq4_xs};
  return scheme;
}

}  // namespace slmc
