// llama.cpp's Q4_K_M: attn_v and ffn_down of half the layers in q6_k.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_q4_k_m(const MatrixRole& role) {
  return role.sensitive() && role.in_more_bits_layer() ? DType::kQ6_K : DType::kQ4_K;
}

}  // namespace

const Scheme& scheme_q4_k_m();
const Scheme& scheme_q4_k_m() {
  static const Scheme scheme = {"q4_k_m",
                                "4-bit super-blocks, sensitive parts of half the layers in q6_k",
                                DType::kQ4_K, 15, &choose_q4_k_m};
  return scheme;
}

}  // namespace slmc
