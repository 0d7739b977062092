// llama.cpp's Q4_0: matrices in q4_0, but the head (or the embedding that is tied to it) in q6_k,
// because errors there go straight into the logits. q6_k has no codec here yet; q8_0 takes its
// place, which is larger and closer to the source.
#include "quantize/scheme.h"

namespace slmc {
namespace {

TypeChoice choose(const TensorInfo& tensor, const Architecture& arch) {
  if (!is_output_head(tensor, arch)) return fitting_or_f16(DType::kQ4_0, "scheme q4_0", tensor);
  const std::string head = arch.tied ? "embedding tied to the head" : "head";
  TypeChoice choice = fitting_or_f16(
      DType::kQ8_0, head + ": llama.cpp's mix has q6_k here, q8_0 stands in", tensor);
  choice.substituted = true;
  return choice;
}

}  // namespace

const Scheme& scheme_q4_0();
const Scheme& scheme_q4_0() {
  static const Scheme scheme = {
      "q4_0", "4-bit blocks of 32 (4.5 bits a weight), head or tied embedding in q8_0", &choose};
  return scheme;
}

}  // namespace slmc
