// Signed 4-bit codes, a scale for 32 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i4_g32();
const BlockCodec& codec_i4_g32() {
  static const BlockCodec codec = group::I4<32>::codec(kI4_G32, "i4_g32");
  return codec;
}

}  // namespace slmc
