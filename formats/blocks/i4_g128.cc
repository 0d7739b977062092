// Signed 4-bit codes, a scale for 128 columns. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i4_g128();
const BlockCodec& codec_i4_g128() {
  static const BlockCodec codec = group::I4<128>::codec(kI4_G128, "i4_g128");
  return codec;
}

}  // namespace slmc
