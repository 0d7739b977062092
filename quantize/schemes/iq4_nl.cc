// llama.cpp's IQ4_NL: attn_v that four heads or more share, and without weights from statistics the
// first ffn_down, in q5_k.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_iq4_nl(const MatrixRole& role) {
  if (role.part == MatrixPart::kValues && role.heads_per_kv >= 4) return DType::kQ5_K;
  if (role.part == MatrixPart::kFfnDown && role.layer < role.layers / 8 && !role.weighted)
    return DType::kQ5_K;
  return DType::kIQ4_NL;
}

}  // namespace

const Scheme& scheme_iq4_nl();
const Scheme& scheme_iq4_nl() {
  static const Scheme scheme = {
      "iq4_nl", "4-bit uneven steps in blocks of 32 (4.5 bits a weight), head in q6_k",
      DType::kIQ4_NL, 25, &choose_iq4_nl};
  return scheme;
}

}  // namespace slmc
