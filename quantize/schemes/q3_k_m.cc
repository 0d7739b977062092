// llama.cpp's Q3_K_M: attn_v, ffn_down and attn_output in q4_k, the first of them in q5_k.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_q3_k_m(const MatrixRole& role) {
  if (role.part == MatrixPart::kValues) return role.layer < 2 ? DType::kQ5_K : DType::kQ4_K;
  if (role.part == MatrixPart::kFfnDown)
    return role.layer < role.layers / 16 ? DType::kQ5_K : DType::kQ4_K;
  return role.part == MatrixPart::kOutput ? DType::kQ4_K : DType::kQ3_K;
}

}  // namespace

const Scheme& scheme_q3_k_m();
const Scheme& scheme_q3_k_m() {
  static const Scheme scheme = {"q3_k_m", "3-bit super-blocks, sensitive parts in q4_k and q5_k",
                                DType::kQ3_K, 12, &choose_q3_k_m};
  return scheme;
}

}  // namespace slmc
