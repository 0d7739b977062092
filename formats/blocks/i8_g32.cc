// Signed 8-bit codes, a scale for 32 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i8_g32();
const BlockCodec& codec_i8_g32() {
  static const BlockCodec codec = group::I8<32>::codec(kI8_G32, "i8_g32");
  return codec;
}

}  // namespace slmc
