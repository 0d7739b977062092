// 8-bit weights of the layers in blocks for vLLM and transformers; inputs are rounded to 8 bits
// too, with a scale for each token.
#include "formats/group_types.h"
#include "quantize/scheme.h"

namespace slmc {

const Scheme& scheme_w8a8();
const Scheme& scheme_w8a8() {
  static const Scheme scheme = {
      "w8a8", "compressed-tensors: 8-bit weights, a scale a row, inputs rounded to 8 bits a token",
      kI8A8_Row, 0, nullptr};
  return scheme;
}

}  // namespace slmc
