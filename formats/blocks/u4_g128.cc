// Unsigned 4-bit codes, a scale and a zero point for 128 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_u4_g128();
const BlockCodec& codec_u4_g128() {
  static const BlockCodec codec = group::U4<128>::codec(kU4_G128, "u4_g128");
  return codec;
}

}  // namespace slmc
