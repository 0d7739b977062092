// UTF-8, character classes and normal forms exactly as Hugging Face `tokenizers` 0.23 sees them
// (tables: unicode_tables.py). Texts handed to these functions are valid UTF-8 unless a function
// says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slmc::unicode {

/// General categories, numbered as in the tables.
enum Category : uint8_t {
  kCn,
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCs,
  kCo
};
constexpr uint32_t kLetters = 1u << kLu | 1u << kLl | 1u << kLt | 1u << kLm | 1u << kLo;
constexpr uint32_t kMarks = 1u << kMn | 1u << kMc | 1u << kMe;
constexpr uint32_t kNumbers = 1u << kNd | 1u << kNl | 1u << kNo;
constexpr uint32_t kPunctuation =
    1u << kPc | 1u << kPd | 1u << kPs | 1u << kPe | 1u << kPi | 1u << kPf | 1u << kPo;

/// white space << 7 | word (Rust's \w) << 6 | category.
uint8_t properties(uint32_t code);
inline bool in_categories(uint8_t property, uint32_t mask) { return mask >> (property & 63u) & 1u; }
inline bool is_space(uint8_t property) { return property & 128u; }
inline bool is_word(uint8_t property) { return property & 64u; }
/// Classes that `tokenizers` takes from older tables where it looks at single characters.
enum Legacy : uint8_t {
  kCombiningMark = 1,   ///< StripAccents.
  kNonspacingMark = 2,  ///< BertNormalizer's strip_accents.
  kRemovedControl = 4,  ///< BertNormalizer's clean_text.
  kOldPunctuation = 8,  ///< Punctuation, BertPreTokenizer.
};
/// Bits of Legacy.
uint8_t legacy(uint32_t code);
/// Mask of a general category's name, one letter ("L") or two ("Lu"); 0 if there is none.
uint32_t category_mask(std::string_view name);
/// Ranges [first, last] of code points (surrogates left out) whose property bits satisfy
/// `wanted(properties)`.
std::vector<std::pair<uint32_t, uint32_t>> ranges_where(bool (*wanted)(uint8_t property,
                                                                       uint32_t mask),
                                                        uint32_t mask);

/// The character at `at` < text.size(); moves `at` behind it.
inline uint32_t next(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<unsigned char>(text[i]));
  };
  const uint32_t first = byte(at);
  if (first < 0x80) return ++at, first;
  if (first < 0xe0) return at += 2, (first & 31u) << 6 | (byte(at - 1) & 63u);
  if (first < 0xf0)
    return at += 3, (first & 15u) << 12 | (byte(at - 2) & 63u) << 6 | (byte(at - 1) & 63u);
  at += 4;
  return (first & 7u) << 18 | (byte(at - 3) & 63u) << 12 | (byte(at - 2) & 63u) << 6 |
         (byte(at - 1) & 63u);
}
/// Start of the character that ends before `end` > 0.
inline size_t previous(std::string_view text, size_t end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0u) == 0x80u);
  return end;
}
void append(std::string& out, uint32_t code);

/// Length of the valid character at `at`, or 0. Any bytes.
size_t valid_length(std::string_view bytes, size_t at);
bool is_valid(std::string_view bytes);
/// Any bytes to valid UTF-8, each invalid byte becoming one U+FFFD.
std::string replace_invalid(std::string_view bytes);
/// Any bytes to valid UTF-8, each longest prefix of a character becoming one U+FFFD (Rust's
/// from_utf8_lossy, WHATWG).
std::string decode_lossy(std::string_view bytes);
/// Bytes at the end that are a prefix of a valid character, 0 to 3.
size_t incomplete_tail(std::string_view bytes);

/// End of the extended grapheme cluster that begins at `at` < text.size() (UAX #29, Unicode 17).
size_t grapheme_end(std::string_view text, size_t at);

std::string decomposed(std::string_view text, bool compatible);  ///< NFD, NFKD.
std::string composed(std::string_view text, bool compatible);    ///< NFC, NFKC.
std::string lower_case(std::string_view text);                   ///< Character by character.

}  // namespace slmc::unicode
