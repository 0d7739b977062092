// Signed 8-bit codes, a scale for 64 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i8_g64();
const BlockCodec& codec_i8_g64() {
  static const BlockCodec codec = group::I8<64>::codec(kI8_G64, "i8_g64");
  return codec;
}

}  // namespace slmc
