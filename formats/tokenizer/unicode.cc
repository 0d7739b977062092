// Lookups in the generated tables, UTF-8 validation, and the normal forms of UAX #15.
#include "formats/tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "formats/tokenizer/unicode_tables.h"

namespace slmc::unicode {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";
constexpr std::string_view kCategoryNames =
    "CnLuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCo";

/// Value (low 8 bits) of the last entry of a `start << 8 | value` table that is not behind `code`.
uint8_t lookup(const uint32_t* table, size_t count, uint32_t code) {
  const uint32_t* end = table + count;
  const uint32_t* entry = std::upper_bound(table, end, code << 8 | 255u);
  return entry == table ? 0 : static_cast<uint8_t>(entry[-1]);
}

/// Planes 0 and 1 unrolled, as nearly all text lies there.
struct Unrolled {
  static constexpr uint32_t kSize = 0x20000;
  std::array<uint8_t, kSize> values{};
  Unrolled(const uint32_t* table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const uint32_t start = table[i] >> 8;
      const uint32_t end = i + 1 < count ? table[i + 1] >> 8 : 0x110000u;
      if (start >= kSize) break;
      std::fill(values.begin() + start, values.begin() + std::min(end, kSize),
                static_cast<uint8_t>(table[i]));
    }
  }
};

/// Decompositions and compositions as hash tables, built at first use.
struct NormalForms {
  struct Slice {
    const uint32_t* data;
    uint32_t size;
  };
  std::unordered_map<uint32_t, Slice> canonical, compatible;
  std::unordered_map<uint64_t, uint32_t> compositions;
  std::unordered_map<uint32_t, uint32_t> single;

  NormalForms() {
    read(kCanonical, kCanonical_count, canonical);
    read(kCompatible, kCompatible_count, compatible);
    for (size_t i = 0; i < kCompositions_count; i += 3) {
      compositions[static_cast<uint64_t>(kCompositions[i]) << 32 | kCompositions[i + 1]] =
          kCompositions[i + 2];
    }
    for (size_t i = 0; i < kCompatibleRuns_count; i += 4) {
      const int32_t* run = kCompatibleRuns + i;
      for (int32_t code = run[0]; code <= run[1]; code += run[2]) {
        single[static_cast<uint32_t>(code)] = static_cast<uint32_t>(code + run[3]);
      }
    }
  }
  static void read(const uint32_t* table, size_t count, std::unordered_map<uint32_t, Slice>& to) {
    for (size_t i = 0; i < count; i += 2 + table[i + 1])
      to[table[i]] = {table + i + 2, table[i + 1]};
  }
};

const NormalForms& normal_forms() {
  static const NormalForms forms;
  return forms;
}

struct Character {
  uint32_t code;
  uint8_t combining;
};

constexpr uint32_t kHangulS = 0xac00, kHangulL = 0x1100, kHangulV = 0x1161, kHangulT = 0x11a7;
constexpr uint32_t kHangulVs = 21, kHangulTs = 28, kHangulSs = 11172;

void push(std::vector<Character>& out, uint32_t code) {
  out.push_back({code, lookup(kCombining, kCombining_count, code)});
}

void decompose(uint32_t code, bool compatible, std::vector<Character>& out) {
  if (code < 0xa0) return out.push_back({code, 0});
  if (code - kHangulS < kHangulSs) {
    const uint32_t index = code - kHangulS;
    push(out, kHangulL + index / (kHangulVs * kHangulTs));
    push(out, kHangulV + index / kHangulTs % kHangulVs);
    if (index % kHangulTs != 0) push(out, kHangulT + index % kHangulTs);
    return;
  }
  const NormalForms& forms = normal_forms();
  if (compatible) {
    if (const auto found = forms.single.find(code); found != forms.single.end())
      return push(out, found->second);
    if (const auto found = forms.compatible.find(code); found != forms.compatible.end()) {
      for (uint32_t i = 0; i < found->second.size; ++i) push(out, found->second.data[i]);
      return;
    }
  }
  if (const auto found = forms.canonical.find(code); found != forms.canonical.end()) {
    for (uint32_t i = 0; i < found->second.size; ++i) push(out, found->second.data[i]);
    return;
  }
  push(out, code);
}

/// Decomposed characters in canonical order (UAX #15, D108 and D109).
std::vector<Character> decompose_all(std::string_view text, bool compatible) {
  std::vector<Character> out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) decompose(next(text, at), compatible, out);
  for (size_t i = 0; i < out.size();) {
    if (out[i].combining == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < out.size() && out[end].combining != 0) ++end;
    std::stable_sort(
        out.begin() + static_cast<ptrdiff_t>(i), out.begin() + static_cast<ptrdiff_t>(end),
        [](const Character& a, const Character& b) { return a.combining < b.combining; });
    i = end;
  }
  return out;
}

/// The primary composite of two characters, or 0.
uint32_t compose_pair(uint32_t first, uint32_t second) {
  if (first - kHangulL < 19 && second - kHangulV < kHangulVs) {
    return kHangulS + ((first - kHangulL) * kHangulVs + (second - kHangulV)) * kHangulTs;
  }
  if (first - kHangulS < kHangulSs && (first - kHangulS) % kHangulTs == 0 &&
      second - kHangulT - 1 < kHangulTs - 1) {
    return first + (second - kHangulT);
  }
  const auto& pairs = normal_forms().compositions;
  const auto found = pairs.find(static_cast<uint64_t>(first) << 32 | second);
  return found == pairs.end() ? 0 : found->second;
}

bool below(std::string_view text, unsigned char bound) {
  return std::all_of(text.begin(), text.end(),
                     [=](char c) { return static_cast<unsigned char>(c) < bound; });
}

/// Length of the character or of its longest prefix at `at` (at least 1), and whether it is whole.
std::pair<size_t, bool> scan_character(std::string_view bytes, size_t at) {
  const auto byte = [&](size_t i) {
    return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u;
  };
  const unsigned first = byte(at);
  if (first < 0x80) return {1, true};
  size_t length = 0;
  unsigned low = 0x80, high = 0xbf;  // Bounds of the second byte: no overlong forms, surrogates or
                                     // values over 10FFFF.
  if (first >= 0xc2 && first <= 0xdf)
    length = 2;
  else if (first >= 0xe0 && first <= 0xef)
    length = 3;
  else if (first >= 0xf0 && first <= 0xf4)
    length = 4;
  else
    return {1, false};
  if (first == 0xe0) low = 0xa0;
  if (first == 0xed) high = 0x9f;
  if (first == 0xf0) low = 0x90;
  if (first == 0xf4) high = 0x8f;
  for (size_t i = 1; i < length; ++i) {
    const unsigned b = byte(at + i);
    if (b < low || b > high) return {i, false};
    low = 0x80;
    high = 0xbf;
  }
  return {length, true};
}

}  // namespace

uint8_t properties(uint32_t code) {
  static const Unrolled unrolled(kProperties, kProperties_count);
  if (code < Unrolled::kSize) return unrolled.values[code];
  return lookup(kProperties, kProperties_count, code);
}

uint8_t legacy(uint32_t code) {
  static const Unrolled unrolled(kLegacy, kLegacy_count);
  if (code < Unrolled::kSize) return unrolled.values[code];
  return lookup(kLegacy, kLegacy_count, code);
}

uint32_t category_mask(std::string_view name) {
  if (name.empty() || name.size() > 2) return 0;
  uint32_t mask = 0;
  for (size_t i = 0; i < kCategoryNames.size(); i += 2) {
    if (kCategoryNames.substr(i, name.size()) == name) mask |= 1u << (i / 2);
  }
  return mask;
}

std::vector<std::pair<uint32_t, uint32_t>> ranges_where(bool (*wanted)(uint8_t, uint32_t),
                                                        uint32_t mask) {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  for (size_t i = 0; i < kProperties_count; ++i) {
    const auto property = static_cast<uint8_t>(kProperties[i]);
    if ((property & 63u) == kCs || !wanted(property, mask)) continue;
    const uint32_t start = kProperties[i] >> 8;
    const uint32_t last = (i + 1 < kProperties_count ? kProperties[i + 1] >> 8 : 0x110000u) - 1;
    if (!ranges.empty() && ranges.back().second + 1 == start)
      ranges.back().second = last;
    else
      ranges.emplace_back(start, last);
  }
  return ranges;
}

void append(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 63));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 63));
    put(0x80 | (code >> 6 & 63));
  }
  put(0x80 | (code & 63));
}

size_t valid_length(std::string_view bytes, size_t at) {
  const auto [length, whole] = scan_character(bytes, at);
  return whole ? length : 0;
}

bool is_valid(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = valid_length(bytes, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

std::string replace_invalid(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = valid_length(bytes, at);
    if (length == 0) {
      out += kReplacement;
      ++at;
    } else {
      out.append(bytes, at, length);
      at += length;
    }
  }
  return out;
}

std::string decode_lossy(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const auto [length, whole] = scan_character(bytes, at);
    if (whole)
      out.append(bytes, at, length);
    else
      out += kReplacement;
    at += length;
  }
  return out;
}

size_t incomplete_tail(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const size_t at = bytes.size() - back;
    if ((static_cast<unsigned char>(bytes[at]) & 0xc0u) == 0x80u) continue;
    const auto [length, whole] = scan_character(bytes, at);
    const auto first = static_cast<unsigned char>(bytes[at]);
    return !whole && length == back && first >= 0xc2 && first <= 0xf4 ? back : 0;
  }
  return 0;
}

std::string decomposed(std::string_view text, bool compatible) {
  if (below(text, 0x80)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  for (const Character& c : decompose_all(text, compatible)) append(out, c.code);
  return out;
}

std::string composed(std::string_view text, bool compatible) {
  if (below(text, 0x80)) return std::string(text);
  std::vector<Character> parts = decompose_all(text, compatible);
  std::vector<Character> kept;
  kept.reserve(parts.size());
  size_t starter = parts.size();  // Index in `kept`; none yet.
  for (const Character& c : parts) {
    // A character composes with the last starter unless one of equal or higher class stands between
    // (D115).
    const bool blocked = kept.empty() || starter >= kept.size() ||
                         (starter + 1 < kept.size() &&
                          (kept.back().combining >= c.combining || kept.back().combining == 0));
    if (!blocked) {
      if (const uint32_t both = compose_pair(kept[starter].code, c.code); both != 0) {
        kept[starter].code = both;
        continue;
      }
    }
    if (c.combining == 0) starter = kept.size();
    kept.push_back(c);
  }
  std::string out;
  out.reserve(text.size());
  for (const Character& c : kept) append(out, c.code);
  return out;
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const uint32_t code = next(text, at);
    if (code < 0x80) {
      out.push_back(static_cast<char>(code >= 'A' && code <= 'Z' ? code + 32 : code));
      continue;
    }
    if (code == 0x130) {  // The one letter whose lower case is two characters.
      out += "i\xcc\x87";
      continue;
    }
    // Runs are sorted by their first character and may interleave (stride 2) with the one before.
    uint32_t lower = code;
    const auto wanted = static_cast<int32_t>(code);
    size_t low = 0, high = kLower_count / 4;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (kLower[middle * 4] <= wanted)
        low = middle + 1;
      else
        high = middle;
    }
    for (size_t i = low; i-- > 0 && i + 2 >= low;) {
      const int32_t* run = kLower + i * 4;
      if (wanted <= run[1] && (wanted - run[0]) % run[2] == 0)
        lower = static_cast<uint32_t>(wanted + run[3]);
    }
    append(out, lower);
  }
  return out;
}

}  // namespace slmc::unicode
