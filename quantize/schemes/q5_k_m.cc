// llama.cpp's Q5_K_M: attn_v and ffn_down of half the layers in q6_k.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_q5_k_m(const MatrixRole& role) {
  return role.sensitive() && role.in_more_bits_layer() ? DType::kQ6_K : DType::kQ5_K;
}

}  // namespace

const Scheme& scheme_q5_k_m();
const Scheme& scheme_q5_k_m() {
  static const Scheme scheme = {"q5_k_m",
                                "5-bit super-blocks, sensitive parts of half the layers in q6_k",
                                DType::kQ5_K, 17, &choose_q5_k_m};
  return scheme;
}

}  // namespace slmc
