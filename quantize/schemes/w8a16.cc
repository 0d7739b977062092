// 8-bit weights of the layers in blocks for vLLM and transformers; inputs stay 16 bits.
#include "formats/group_types.h"
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_w8a16();
const Scheme& scheme_w8a16() {
  static const Scheme scheme = {
      "w8a16", "compressed-tensors: 8-bit weights, a scale a row (see --group-size)", kI8_Row, 0,
      nullptr};
  return scheme;
}

}  // namespace slmc
