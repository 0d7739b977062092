// llama.cpp's Q3_K_L: attn_v, ffn_down and attn_output in q5_k.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_q3_k_l(const MatrixRole& role) {
  return role.sensitive() || role.part == MatrixPart::kOutput ? DType::kQ5_K : DType::kQ3_K;
}

}  // namespace

const Scheme& scheme_q3_k_l();
const Scheme& scheme_q3_k_l() {
  static const Scheme scheme = {"q3_k_l", "3-bit super-blocks, sensitive parts in q5_k",
                                DType::kQ3_K, 13, &choose_q3_k_l};
  return scheme;
}

}  // namespace slmc
