// The stages around the model: added tokens, normalizers, pre-tokenizers, post-processors and
// decoders of tokenizer.json. Each `make_` function reads a component's JSON (null: none) and
// throws Error(kUnsupported) naming a type that is not implemented.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/json.h"
#include "formats/tokenizer/vocabulary.h"

namespace slmc::tokenization {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string text) const = 0;
};
std::unique_ptr<Normalizer> make_normalizer(const Json& json, const std::string& where);
/// SentencePiece's table of replacements, `precompiled_charsmap` of a "Precompiled" normalizer.
std::unique_ptr<Normalizer> make_precompiled(std::string_view base64, const std::string& where);
/// Throws Error(kBadInput) naming `where` for what is not base64.
std::string decode_base64(std::string_view text, const std::string& where);
std::string encode_base64(std::string_view bytes);

/// A text and the stretches of it that are pieces; what lies between was removed.
struct Pieces {
  struct Range {
    size_t begin, end;
  };
  std::string text;
  std::vector<Range> ranges;
  bool opens_text =
      true;  ///< `text` is the beginning of what is tokenized, not what follows an added token.
  bool bytes =
      false;  ///< Each byte stands for its ByteLevel character (a mapping put off until the model).
};
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
};
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& json, const std::string& where);

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = true, special = false;
};
/// Reads `added_tokens`. Ids are given as Hugging Face's loader does: a token in the vocabulary has
/// its id there, others follow.
std::vector<AddedToken> read_added_tokens(const Json& json, const Vocabulary& vocabulary,
                                          const std::string& where);

/// Finds added tokens in text, longest first.
class AddedTokenFinder {
 public:
  struct Part {
    size_t begin, end;
    int32_t id;  ///< -1: text between tokens.
  };
  /// `contents[i]` is what stands for `tokens[i]` in the text.
  AddedTokenFinder(const std::vector<AddedToken>& tokens, const std::vector<std::string>& contents);
  void split(std::string_view text, std::vector<Part>& out) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, int32_t>> children;
    int32_t token = -1;  // Index in tokens_.
  };
  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  bool starts_[256] = {};
};

/// What a post-processor makes of a text, or of a pair of texts: the texts' ids with others around
/// them.
struct Template {
  struct Part {
    int text = -1;  ///< 0: the first text's ids; 1: the second's; -1: `ids`.
    std::vector<int32_t> ids;
    int32_t type = 0;  ///< Segment (BERT's token type) of these ids.
  };
  std::vector<Part> single = {{0, {}, 0}};
  std::vector<Part> pair = {{0, {}, 0}, {1, {}, 1}};
};
/// `find_id`: id of a token's text, -1 if there is none.
Template make_template(const Json& json, const std::function<int32_t(const std::string&)>& find_id,
                       const std::string& where);

class Decoder {
 public:
  virtual ~Decoder() = default;
  /// Changes the list of token texts in place.
  virtual void apply(std::vector<std::string>& tokens) const = 0;
};
/// A chain of decoders and what streaming needs to know of it.
class DecoderChain {
 public:
  DecoderChain(const Json& json, const std::string& where);
  DecoderChain(DecoderChain&&) noexcept;
  ~DecoderChain();
  /// All of a text's tokens to text.
  std::string decode(std::vector<std::string> tokens) const;
  /// A part of a text's tokens; `first`: it is the beginning.
  std::string decode_part(std::vector<std::string> tokens, bool first) const;
  /// True if no token that could follow can change what `tokens` decode to.
  bool certain(const std::vector<std::string>& tokens) const;
  /// Bytes of one token without the rules for the beginning of a text.
  std::string bytes(const std::string& token) const;

 private:
  struct Step;
  void add(const Json& json, const std::string& where);
  std::vector<Step> steps_;
  bool byte_level_ = false, byte_fallback_ = false, end_rules_ = false, joins_with_space_ = false;
  std::string word_end_;  // Of a BPEDecoder: what it does to a token depends on what follows.
};

}  // namespace slmc::tokenization
