// Text to token ids and back, interpreting tokenizer.json itself; ids equal those of Hugging Face
// `tokenizers`.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/json.h"
#include "formats/gguf.h"
#include "formats/model.h"

namespace slmc {

/// Ids, and per id its segment (BERT's token type).
struct Encoding {
  std::vector<int32_t> ids, types;
};

class Tokenizer {
 public:
  /// `tokenizer_config` may be null. Throws Error(kBadInput) naming `where`; Error(kUnsupported)
  /// for a component that is not implemented.
  static std::shared_ptr<const Tokenizer> from_json(std::string_view tokenizer_json,
                                                    const Json& tokenizer_config,
                                                    const std::string& where);
  /// From the texts that travel with a model. `arch` may be null; else its BOS and EOS stand where
  /// the texts name none and do not say null. Throws Error(kBadInput) if there is no tokenizer.json
  /// among them.
  static std::shared_ptr<const Tokenizer> from_assets(const Assets& assets,
                                                      const std::string& where,
                                                      const Architecture* arch = nullptr);
  /// A folder that holds at least tokenizer.json, or a GGUF file.
  static std::shared_ptr<const Tokenizer> open(const std::string& path);
  virtual ~Tokenizer() = default;

  /// `special`: add what the post-processor adds (BOS...). Added tokens in the text are recognised
  /// either way. Invalid UTF-8 bytes are replaced by U+FFFD each.
  virtual std::vector<int32_t> encode(std::string_view text, bool special = true) const = 0;
  /// Two texts as encoders take them ([CLS] first [SEP] second [SEP]), as the post-processor says.
  virtual Encoding encode_pair(std::string_view first, std::string_view second,
                               bool special = true) const = 0;
  /// What the post-processor makes of the ids of one text, or of two.
  virtual Encoding assemble(std::span<const std::vector<int32_t>> texts) const = 0;
  /// `skip_special` leaves out tokens that are marked special.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special = false) const = 0;
  /// The bytes that one id stands for in a stream, before the decoder's rules for the start of a
  /// text.
  virtual std::string token_bytes(int32_t id) const = 0;
  /// The token's text as in tokenizer.json; "" for ids without one.
  virtual std::string token_text(int32_t id) const = 0;
  /// -1 if there is none.
  virtual int32_t token_id(std::string_view text) const = 0;
  virtual int32_t vocab_size() const = 0;  ///< Highest id + 1, added tokens included.
  virtual bool is_special(int32_t id) const = 0;
  /// Whether `skip_special` leaves this id out. As in Hugging Face's library, a special token that
  /// normalization changes (Llama-2's "<s>") stays.
  virtual bool is_skipped(int32_t id) const { return is_special(id); }
  virtual int32_t bos() const = 0;  ///< From tokenizer_config or the template; -1: none.
  virtual int32_t eos() const = 0;
  virtual bool adds_bos() const = 0;  ///< The post-processor puts BOS first.
  virtual bool adds_eos() const = 0;
  /// Of all token strings and rules; equal tokenizers have equal hashes.
  virtual const std::string& hash() const = 0;

  /// For streaming: whether no id that could follow changes the text of `ids`, and the text of a
  /// part of a longer sequence
  /// (`first`: its beginning). Parts that end where the text is certain join to what decode() gives
  /// for the whole.
  virtual bool certain(std::span<const int32_t> ids) const = 0;
  virtual std::string decode_part(std::span<const int32_t> ids, bool first,
                                  bool skip_special) const = 0;
};

/// The texts that travel with a model, of a folder that holds at least tokenizer.json, or of a GGUF
/// file.
Assets tokenizer_assets(const std::string& path);

/// Decodes ids one at a time, holding back bytes until they are whole UTF-8 characters.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  /// Text that became certain with this id; may be empty.
  std::string add(int32_t id);
  /// What is left, with U+FFFD for an incomplete character.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;  // Not yet shown.
  bool skip_special_;
  bool first_ = true;
};

/// GGUF keys `tokenizer.*` and `slmc.tokenizer` (tokenizer.json without vocabulary and merges) for
/// a model of `arch`. `arch.vocab` beyond the tokenizer is filled with unused tokens, as
/// llama.cpp's converter does; added tokens with ids beyond it are in slmc's own keys alone. Throws
/// Error(kUnsupported) if llama.cpp knows no pre-tokenizer that behaves the same, Error(kBadInput)
/// if a token of the vocabulary is beyond `arch.vocab`.
void tokenizer_to_gguf(const Assets& assets, const Architecture& arch, const std::string& where,
                       GgufKeys& keys);
/// Where llama.cpp tokenizes otherwise than `assets` all the same, in sentences; none if there is
/// no tokenizer or it would be refused.
std::vector<std::string> tokenizer_gguf_notes(const Assets& assets, const std::string& where);
/// The reverse: rebuilds tokenizer.json and tokenizer_config.json. A foreign GGUF is accepted if
/// its pre-tokenizer is one whose behaviour is tested, else Error(kUnsupported). A GGUF without a
/// tokenizer gives empty assets.
Assets tokenizer_from_gguf(const GgufKeys& keys, const std::string& where);

struct BpeTrainingOptions {
  int64_t vocab = 8192;
  std::string pattern =
      "llama-bpe";  ///< Name of a known split pattern ("llama-bpe", "qwen2", "gpt-2").
  int64_t min_frequency = 2;
  std::vector<std::string>
      special_tokens;  ///< Ids 0, 1, ...; the first is BOS and the second EOS when `add_bos`.
  bool add_bos = true;
};
/// Byte-level BPE trained on documents; deterministic (ties by pair order). Returns the text of
/// tokenizer.json.
std::string train_bpe(const std::vector<std::string>& documents, const BpeTrainingOptions& options);

}  // namespace slmc
