// What the writer and the reader of tokenizers in GGUF agree on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "compress/core/json.h"

namespace slmc::tokenization {

/// llama.cpp's token types.
enum GgufTokenType : int32_t {
  kNormalToken = 1,
  kUnknownToken = 2,
  kControlToken = 3,
  kUserToken = 4,
  kUnusedToken = 5,
  kByteToken = 6
};

/// In slmc.tokenizer: ids of the added tokens that model.vocab does not have.
constexpr const char* kOutsideKey = "slmc_added_outside_vocabulary";

/// "<0x1F>".
inline bool is_byte_token(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.back() == '>';
}

/// A WordPiece token as llama.cpp spells it: what begins a word has U+2581 in front, what continues
/// one has nothing; and back.
inline std::string gguf_piece(std::string_view text, std::string_view prefix) {
  return text.starts_with(prefix) ? std::string(text.substr(prefix.size()))
                                  : "\xe2\x96\x81" + std::string(text);
}
inline std::string piece_of_gguf(std::string_view text, std::string_view prefix) {
  return text.starts_with("\xe2\x96\x81") ? std::string(text.substr(3))
                                          : std::string(prefix) + std::string(text);
}

/// The normalizers of SentencePiece models as tokenizer.json spells them.
inline Json sentence_prepend() { return {{"type", "Prepend"}, {"prepend", "\xe2\x96\x81"}}; }
inline Json sentence_replace() {
  return {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\xe2\x96\x81"}};
}

}  // namespace slmc::tokenization
