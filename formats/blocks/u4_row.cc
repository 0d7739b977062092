// Unsigned 4-bit codes, a scale and a zero point for a whole row. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_u4_row();
const BlockCodec& codec_u4_row() {
  static const BlockCodec codec = group::U4Row::codec(kU4_Row, "u4_row");
  return codec;
}

}  // namespace slmc
