// llama.cpp's Q4_K_S: the first attn_v and ffn_down in q5_k.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_q4_k_s(const MatrixRole& role) {
  const bool first =
      role.part == MatrixPart::kValues ? role.layer < 4 : role.layer < role.layers / 8;
  return role.sensitive() && first ? DType::kQ5_K : DType::kQ4_K;
}

}  // namespace

const Scheme& scheme_q4_k_s();
const Scheme& scheme_q4_k_s() {
  static const Scheme scheme = {
      "q4_k_s", "4-bit super-blocks (4.5 bits a weight), the first sensitive parts in q5_k",
      DType::kQ4_K, 14, &choose_q4_k_s};
  return scheme;
}

}  // namespace slmc
