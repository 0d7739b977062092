// Unsigned 4-bit codes, a scale and a zero point for 32 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_u4_g32();
const BlockCodec& codec_u4_g32() {
  static const BlockCodec codec = group::U4<32>::codec(kU4_G32, "u4_g32");
  return codec;
}

}  // namespace slmc
