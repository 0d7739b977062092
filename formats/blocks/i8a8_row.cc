// Signed 8-bit codes, a scale for a whole row; inputs are rounded to 8 bits a token. Source:
// compressed-tensors.
#include "formats/blocks/group.h"

namespace slmc {

const BlockCodec& codec_i8a8_row();
const BlockCodec& codec_i8a8_row() {
  static const BlockCodec codec = group::I8Row::codec(kI8A8_Row, "i8a8_row");
  return codec;
}

}  // namespace slmc
