// Signed 4-bit codes, a scale for 64 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i4_g64();
const BlockCodec& codec_i4_g64() {
  static const BlockCodec codec = group::I4<64>::codec(kI4_G64, "i4_g64");
  return codec;
}

}  // namespace slmc
