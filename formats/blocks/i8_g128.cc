// Signed 8-bit codes, a scale for 128 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i8_g128();
const BlockCodec& codec_i8_g128() {
  static const BlockCodec codec = group::I8<128>::codec(kI8_G128, "i8_g128");
  return codec;
}

}  // namespace slmc
