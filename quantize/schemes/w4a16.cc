// 4-bit weights of the layers in blocks for vLLM and transformers; inputs stay 16 bits.
#include "formats/group_types.h"
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_w4a16();
const Scheme& scheme_w4a16() {
  static const Scheme scheme = {
      "w4a16",
      "compressed-tensors: 4-bit weights, a scale for 128 columns (see --group-size, --asymmetric)",
      kI4_G128, 0, nullptr};
  return scheme;
}

}  // namespace slmc
