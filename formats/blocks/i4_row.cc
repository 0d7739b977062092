// Signed 4-bit codes, a scale for a whole row. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i4_row();
const BlockCodec& codec_i4_row() {
  static const BlockCodec codec = group::I4Row::codec(kI4_Row, "i4_row");
  return codec;
}

}  // namespace slmc
