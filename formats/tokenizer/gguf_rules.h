// What the writer and the reader of tokenizers in GGUF agree on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/json.h"
#include "formats/gguf.h"
#include "formats/tokenizer/json.h"

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
/// In slmc.tokenizer: added tokens of model.vocab whose ids are beyond the model's rows, with those
/// ids.
constexpr const char* kBeyondKey = "slmc_vocabulary_beyond_rows";

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

/// A member of an object; null if there is none.
const Json& part(const Json& json, const char* key);
/// `type` of an object, or a text itself; "" for anything else.
std::string type_of(const Json& json);
bool flag(const Json& json, const char* key, bool fallback);
/// The normalizers of a tokenizer.json one by one, sequences opened.
std::vector<Json> normalizer_steps(const Json& shell);

/// Sets the keys of a SentencePiece-like BPE ("llama") or Unigram ("t5") tokenizer and returns its
/// scores, [vocab]. Throws Error(kUnsupported) for what llama.cpp would tokenize otherwise.
std::vector<float> sentence_to_gguf(const TokenizerFile& file, int64_t vocab,
                                    const std::string& where, GgufKeys& keys);
std::vector<float> unigram_to_gguf(const TokenizerFile& file, int64_t vocab,
                                   const std::string& where, GgufKeys& keys);
/// False if llama.cpp opens a text with a space where a tokenizer of sentence_to_gguf's kind does
/// not.
bool sentence_opens_alike(const TokenizerFile& file);
/// The rules of a foreign "t5" GGUF as a tokenizer.json's shell, but for the tokens; the reverse of
/// unigram_to_gguf.
void set_unigram_rules(const GgufKeys& keys, const std::string& where, Json& shell);

}  // namespace slmc::tokenization
