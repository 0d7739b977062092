// The normalizer "Precompiled": SentencePiece's table of replacements, a double-array trie (Darts)
// over bytes and a block of NUL-terminated texts, kept in base64.
#include <algorithm>
#include <cstring>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

class Precompiled : public Normalizer {
 public:
  Precompiled(std::string_view base64, const std::string& where) {
    const std::string bytes = decode_base64(base64, where);
    uint32_t trie = 0;
    if (bytes.size() >= 4) std::memcpy(&trie, bytes.data(), 4);
    if (bytes.size() < 4 || trie % 4 != 0 || trie > bytes.size() - 4)
      throw_bad_input(cat(where, ": precompiled_charsmap says its trie has ", trie, " bytes of ",
                          bytes.size()));
    units_.resize(trie / 4);
    if (trie > 0) std::memcpy(units_.data(), bytes.data() + 4, trie);
    texts_ = bytes.substr(4 + trie);
    if (!unicode::is_valid(texts_))
      throw_bad_input(cat(where, ": precompiled_charsmap has texts that are not UTF-8"));
  }

  // The reference looks up whole grapheme clusters of up to five bytes, of which the first (that
  // is, the shortest) prefix in the trie counts, and else characters.
  std::string apply(std::string text) const override {
    std::string out;
    out.reserve(text.size());
    std::string_view replacement;
    for (size_t at = 0; at < text.size();) {
      const size_t end = unicode::grapheme_end(text, at);
      if (end - at < 6 && find(std::string_view(text).substr(at, end - at), replacement)) {
        out += replacement;
        at = end;
        continue;
      }
      while (at < end) {
        const size_t start = at;
        unicode::next(text, at);
        const std::string_view character = std::string_view(text).substr(start, at - start);
        out += find(character, replacement) ? replacement : character;
      }
    }
    return out;
  }

 private:
  /// Units of a double array: bits 0 to 7 the label (and bit 31: none), 8 a value follows, 9 and up
  /// the offset to the children, in units of 256 if bit 9 is set. Source: Darts-clone's darts.h.
  bool find(std::string_view text, std::string_view& replacement) const {
    if (units_.empty()) return false;
    const auto offset = [](uint32_t unit) { return unit >> 10 << ((unit & 512u) >> 6); };
    size_t node = offset(units_[0]);
    for (const char c : text) {
      const auto label = static_cast<unsigned char>(c);
      if (label == 0) return false;
      node ^= label;
      if (node >= units_.size() || (units_[node] & 0x800000ffu) != label) return false;
      const uint32_t unit = units_[node];
      node ^= offset(unit);
      if ((unit >> 8 & 1u) == 0) continue;
      if (node >= units_.size()) return false;
      const size_t start = units_[node] & 0x7fffffffu;
      if (start > texts_.size()) return false;
      replacement = std::string_view(texts_).substr(start);
      replacement = replacement.substr(0, replacement.find('\0'));
      return true;
    }
    return false;
  }

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace

std::string decode_base64(std::string_view text, const std::string& where) {
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  int held = 0;
  size_t padding = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (c == '=' && i + 2 >= text.size()) {
      ++padding;
      continue;
    }
    if (value < 0 || padding > 0)
      throw_bad_input(cat(where, ": precompiled_charsmap is not base64 at its byte ", i));
    bits = bits << 6 | static_cast<uint32_t>(value);
    held += 6;
    if (held >= 8) out.push_back(static_cast<char>(bits >> (held -= 8) & 255u));
  }
  if (text.size() % 4 != 0)
    throw_bad_input(cat(where, ": precompiled_charsmap is base64 that is cut off"));
  return out;
}

std::string encode_base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve(bytes.size() / 3 * 4 + 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t bits = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    for (size_t i = 0; i < 3; ++i)
      bits = bits << 8 | (i < count ? static_cast<unsigned char>(bytes[at + i]) : 0u);
    for (size_t i = 0; i < 4; ++i)
      out.push_back(i <= count ? kDigits[bits >> (18 - 6 * i) & 63u] : '=');
  }
  return out;
}

std::unique_ptr<Normalizer> make_precompiled(std::string_view base64, const std::string& where) {
  return std::make_unique<Precompiled>(base64, where);
}

}  // namespace slmc::tokenization
