// Signed 8-bit codes, a scale for a whole row; inputs are rounded to 8 bits with one scale for the
// layer. Source: compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i8s8_row();
const BlockCodec& codec_i8s8_row() {
  static const BlockCodec codec = group::I8StaticRow::codec(kI8S8_Row, "i8s8_row");
  return codec;
}

}  // namespace slmc
