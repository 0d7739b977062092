// llama.cpp's Q2_K: ffn_down and attn_output in q3_k, attn_v in q4_k where four heads or more share
// it.
#include "quantize/scheme.h"

namespace slmc {
namespace {

DType choose_q2_k(const MatrixRole& role) {
  if (role.part == MatrixPart::kValues) return role.heads_per_kv >= 4 ? DType::kQ4_K : DType::kQ3_K;
  if (role.part == MatrixPart::kFfnDown || role.part == MatrixPart::kOutput) return DType::kQ3_K;
  return DType::kQ2_K;
}

}  // namespace

const Scheme& scheme_q2_k();
const Scheme& scheme_q2_k() {
  static const Scheme scheme = {"q2_k", "2-bit super-blocks, sensitive parts in q3_k and q4_k",
                                DType::kQ2_K, 10, &choose_q2_k};
  return scheme;
}

}  // namespace slmc
