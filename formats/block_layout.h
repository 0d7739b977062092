// What the quantized types of GGUF have in common: a block is a row of small integer codes, and
// every `sub` of them share a scale and, in some types, a minimum. One description serves decoding,
// scale search, error feedback and the runtime; a codec (formats/blocks/) adds only where the bits
// lie.
#pragma once

#include <cstddef>
#include <cstdint>

namespace slmc {

/// A block taken apart. Element i stands for
///   (f16(d) * scales[i / sub]) * codes[i] - (f16(dmin) * minimums[i / sub])
/// computed in that order in f32, without the last term where the type has no minimum. Types whose
/// sub-blocks have no scale of their own have scales[0] = 1 (and minimums[0] = 1 with dmin the
/// negative of the stored minimum).
struct BlockParts {
  uint16_t d = 0, dmin = 0;            ///< f16 bits.
  int8_t scales[16] = {};              ///< block / sub of them.
  uint8_t minimums[16] = {};           ///< The same number.
  alignas(64) int8_t codes[256] = {};  ///< What multiplies the scale: for iq4 the table's value.
};

/// The values that a block type can hold.
struct BlockLayout {
  int64_t block = 32;     ///< Elements a block: 32 or 256.
  int64_t sub = 32;       ///< Elements that share a scale: 16 or 32.
  int64_t subs = 1;       ///< block / sub.
  int low = 0, high = 0;  ///< Codes are all integers from low to high, unless there is a table.
  const int8_t* table = nullptr;  ///< 16 ascending values that are the codes instead.
  bool minimum = false;           ///< Has a minimum; then low is 0 and d, scales, dmin >= 0, except
                                  ///< that a block of one sub-block may have dmin of either sign.
  int scale_low = 1, scale_high = 1;  ///< Range of `scales`; minimums go from 0 to scale_high.
  void (*unpack)(const std::byte* block, BlockParts& parts) = nullptr;
  /// The reverse; `parts` is within those ranges.
  void (*pack)(const BlockParts& parts, std::byte* block) = nullptr;
};

/// The f32 scale and minimum of one sub-block, as they multiply and are taken off.
float sub_scale(const BlockParts& parts, int64_t sub);
float sub_minimum(const BlockLayout& layout, const BlockParts& parts, int64_t sub);

/// The 16 values of iq4_nl and iq4_xs, ascending.
extern const int8_t kIq4Values[16];

/// The code whose value is nearest to `value` (of two equally near, the even one, or in a table the
/// lower): `value` is the wanted element plus the minimum, divided by the scale.
int nearest_code(const BlockLayout& layout, float value);

/// Sets the codes of a block of x, [block] floats, to the nearest for the scales that `parts` has.
void round_codes(const BlockLayout& layout, const float* x, BlockParts& parts);

/// n elements of blocks at `in` to floats, with ggml's arithmetic.
void decode_blocks(const BlockLayout& layout, int64_t block_bytes, const std::byte* in, int64_t n,
                   float* out);

/// ggml's reference rounding of the plain blocks of 32. Symmetric (q4_0, q5_0): d = the first
/// element of largest magnitude / low, so that element becomes the lowest code; the others
/// min(high, floor(x / d + 1/2)). Affine (q4_1, q5_1): the minimum m = the least element, d =
/// (greatest - m) / high; codes floor((x - m) / d + 1/2). Codes come from the f32 values of d and
/// m; where 1 / d overflows they are the lowest.
void encode_symmetric(const BlockLayout& layout, int64_t block_bytes, const float* in, int64_t n,
                      std::byte* out);
void encode_affine(const BlockLayout& layout, int64_t block_bytes, const float* in, int64_t n,
                   std::byte* out);

/// Rounding without any search: each sub-block's scale (and minimum) from its extremes, the block's
/// from the largest of them. What the codecs of super-blocks call their reference encoding.
void encode_by_extremes(const BlockLayout& layout, int64_t block_bytes, const float* in, int64_t n,
                        std::byte* out);

}  // namespace slmc
