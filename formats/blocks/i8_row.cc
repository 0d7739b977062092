// Signed 8-bit codes, a scale for a whole row. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i8_row();
const BlockCodec& codec_i8_row() {
  static const BlockCodec codec = group::I8Row::codec(kI8_Row, "i8_row");
  return codec;
}

}  // namespace slmc
