// Unsigned 4-bit codes, a scale and a zero point for 64 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_u4_g64();
const BlockCodec& codec_u4_g64() {
  static const BlockCodec codec = group::U4<64>::codec(kU4_G64, "u4_g64");
  return codec;
}

}  // namespace slmc
