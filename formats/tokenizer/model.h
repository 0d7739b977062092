// What turns one piece of text into ids, after normalisation and splitting. One file a kind of
// model: tokenizer_bpe.cc, tokenizer_unigram.cc, tokenizer_wordpiece.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer/json.h"

namespace slmc::tokenization {

/// GPT-2's table: every byte as a printable character, and back (-1 for other characters).
uint32_t byte_to_character(unsigned char byte);
int character_to_byte(uint32_t code);
/// Bytes as the table's characters.
std::string map_bytes(std::string_view bytes);
/// The bytes of a text made of the table's characters; the text itself if it has any other
/// character.
std::string unmap_bytes(std::string_view text);

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the ids of one piece (valid UTF-8).
  virtual void encode(std::string_view piece, std::vector<int32_t>& out) const = 0;
  /// The same for map_bytes(piece), without making that text where it can be avoided.
  virtual void encode_bytes(std::string_view piece, std::vector<int32_t>& out) const {
    encode(map_bytes(piece), out);
  }
  virtual const Vocabulary& vocabulary() const = 0;
};

/// Takes vocabulary and merges out of `file`. Throws Error(kBadInput) for a merge of unknown
/// tokens, Error(kUnsupported) for dropout.
std::unique_ptr<TokenModel> make_bpe(TokenizerFile& file, const std::string& where);
/// Takes vocabulary and scores out of `file`. encode() throws Error(kBadInput) for a text with an
/// unknown character if the model has no unknown token.
std::unique_ptr<TokenModel> make_unigram(TokenizerFile& file, const std::string& where);
/// Takes the vocabulary out of `file`.
std::unique_ptr<TokenModel> make_wordpiece(TokenizerFile& file, const std::string& where);
/// One token a piece. Takes the vocabulary out of `file`.
std::unique_ptr<TokenModel> make_wordlevel(TokenizerFile& file, const std::string& where);
/// By shell["model"]["type"].
std::unique_ptr<TokenModel> make_token_model(TokenizerFile& file, const std::string& where);

/// Counts the steps of merging (or of Unigram's search) on this thread since it was last set to 0;
/// for tests of growth with length.
uint64_t& merge_steps();

}  // namespace slmc::tokenization
