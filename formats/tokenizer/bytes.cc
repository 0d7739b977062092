// The byte table of GPT-2: printable Latin-1 bytes stand for themselves, the 68 others for U+0100
// onwards in order.
#include <array>

#include "formats/tokenizer/model.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

struct Table {
  std::array<uint32_t, 256> characters;
  std::array<int16_t, 0x180> bytes;
  std::array<std::string, 256> texts;
  Table() {
    bytes.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      characters[byte] = printable ? byte : next++;
      bytes[characters[byte]] = static_cast<int16_t>(byte);
      unicode::append(texts[byte], characters[byte]);
    }
  }
};

const Table& table() {
  static const Table instance;
  return instance;
}

}  // namespace

uint32_t byte_to_character(unsigned char byte) { return table().characters[byte]; }

int character_to_byte(uint32_t code) {
  return code < table().bytes.size() ? table().bytes[code] : -1;
}

std::string map_bytes(std::string_view bytes) {
  const auto& texts = table().texts;
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += texts[static_cast<unsigned char>(c)];
  return out;
}

std::string unmap_bytes(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const int byte = character_to_byte(unicode::next(text, at));
    if (byte < 0) return std::string(text);
    out.push_back(static_cast<char>(byte));
  }
  return out;
}

}  // namespace slmc::tokenization
