// Extended grapheme clusters: what a reader takes for one character (UAX #29, Unicode 17).
#include <algorithm>

#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/unicode_tables.h"

namespace slmc::unicode {
namespace {

/// Grapheme_Cluster_Break, numbered as in the tables; the last two are computed.
enum Break : uint8_t {
  kOther,
  kCarriageReturn,
  kLineFeed,
  kControl,
  kExtend,
  kJoiner,
  kRegional,
  kPrepend,
  kSpacingMark,
  kL,
  kV,
  kT,
  kLv,
  kLvt
};
constexpr uint8_t kClassBits = 15, kPictographic = 16, kConsonant = 32, kLinker = 64,
                  kConjunctExtend = 128;

uint8_t entry(uint32_t code) {
  if (code >= 0xac00 && code < 0xac00 + 11172) return (code - 0xac00) % 28 == 0 ? kLv : kLvt;
  const uint32_t* end = kGrapheme + kGrapheme_count;
  const uint32_t* found = std::upper_bound(kGrapheme, end, code << 8 | 255u);
  return found == kGrapheme ? 0 : static_cast<uint8_t>(found[-1]);
}

bool hangul_joins(uint8_t left, uint8_t right) {  // GB6 to GB8.
  if (left == kL) return right == kL || right == kV || right == kLv || right == kLvt;
  if (left == kLv || left == kV) return right == kV || right == kT;
  return (left == kLvt || left == kT) && right == kT;
}

}  // namespace

size_t grapheme_end(std::string_view text, size_t at) {
  uint8_t left = entry(next(text, at));
  bool pictographic = left & kPictographic;  // So far: pictographic, then Extend only (GB11).
  bool consonant = left & kConsonant, linked = false;  // Likewise for conjuncts (GB9c).
  size_t regionals = (left & kClassBits) == kRegional;
  while (at < text.size()) {
    size_t behind = at;
    const uint8_t found = entry(next(text, behind));
    const auto a = static_cast<uint8_t>(left & kClassBits),
               b = static_cast<uint8_t>(found & kClassBits);
    const bool breaks =
        (a >= kCarriageReturn && a <= kControl) || (b >= kCarriageReturn && b <= kControl);
    bool joined = false;
    if (breaks)
      joined = a == kCarriageReturn && b == kLineFeed;
    else
      joined = b == kExtend || b == kJoiner || b == kSpacingMark || a == kPrepend ||
               hangul_joins(a, b) || (consonant && linked && (found & kConsonant)) ||
               (pictographic && a == kJoiner && (found & kPictographic)) ||
               (b == kRegional && a == kRegional && regionals % 2 == 1);
    if (!joined) break;
    if (found & kPictographic)
      pictographic = true;
    else if (b != kExtend && b != kJoiner)
      pictographic = false;
    if (found & kConsonant)
      consonant = true, linked = false;
    else if (found & kLinker)
      linked = true;
    else if (!(found & kConjunctExtend))
      consonant = false;
    if (b == kRegional) ++regionals;
    left = found;
    at = behind;
  }
  return at;
}

}  // namespace slmc::unicode
