// WordPiece: the longest token that a word begins with, then the longest continuation, and so on; a
// word that cannot be covered is one unknown token. WordLevel: a word is a token or unknown.
#include <algorithm>
#include <limits>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

/// The token for what is not in the vocabulary.
class Unknown {
 public:
  Unknown(const Fields& model, const char* fallback, const Vocabulary& vocabulary)
      : text_(model.string_or("unk_token", fallback)), id_(vocabulary.find(text_)) {}
  int32_t id() const {
    if (id_ < 0)
      throw_bad_input(
          cat("the tokenizer's unknown token ", Json(text_).dump(), " is not in its vocabulary"));
    return id_;
  }

 private:
  std::string text_;
  int32_t id_;
};

size_t longest_token(const Vocabulary& vocabulary) {
  size_t longest = 0;
  for (int32_t id = 0; id < vocabulary.size(); ++id)
    longest = std::max(longest, vocabulary.text(id).size());
  return longest;
}

class WordPiece : public TokenModel {
 public:
  WordPiece(Fields model, Vocabulary vocabulary)
      : vocabulary_(std::move(vocabulary)),
        unknown_(model, "[UNK]", vocabulary_),
        prefix_(model.string_or("continuing_subword_prefix", "##")),
        most_characters_(model.find("max_input_chars_per_word") == nullptr
                             ? 100
                             : model.integer("max_input_chars_per_word")),
        longest_(longest_token(vocabulary_)) {}

  const Vocabulary& vocabulary() const override { return vocabulary_; }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    const auto begins = [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; };
    const size_t first = out.size();
    if (std::count_if(piece.begin(), piece.end(), begins) > most_characters_)
      return out.push_back(unknown_.id());
    std::string text;
    for (size_t at = 0; at < piece.size();) {
      text = at > 0 ? prefix_ : "";
      const size_t prefix = text.size();
      text += piece.substr(at, longest_ - std::min(longest_, prefix));
      size_t end = text.size();
      while (end > prefix && at + (end - prefix) < piece.size() &&
             !begins(piece[at + (end - prefix)]))
        --end;  // Tokens are whole characters.
      int32_t id = -1;
      while (end > prefix && (id = vocabulary_.find(std::string_view(text).substr(0, end))) < 0)
        end = unicode::previous(text, end);
      if (id < 0) {
        out.resize(first);
        return out.push_back(unknown_.id());
      }
      out.push_back(id);
      at += end - prefix;
    }
  }

 private:
  Vocabulary vocabulary_;
  Unknown unknown_;
  std::string prefix_;
  int64_t most_characters_;
  size_t longest_;  // Bytes of the longest token; nothing longer is looked up.
};

class WordLevel : public TokenModel {
 public:
  WordLevel(Fields model, Vocabulary vocabulary)
      : vocabulary_(std::move(vocabulary)), unknown_(model, "<unk>", vocabulary_) {}
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    const int32_t id = vocabulary_.find(piece);
    out.push_back(id >= 0 ? id : unknown_.id());
  }

 private:
  Vocabulary vocabulary_;
  Unknown unknown_;
};

}  // namespace

std::unique_ptr<TokenModel> make_wordpiece(TokenizerFile& file, const std::string& where) {
  const Fields model(file.shell["model"], cat(where, ": model"));
  return std::make_unique<WordPiece>(model, std::move(file.vocabulary));
}

std::unique_ptr<TokenModel> make_wordlevel(TokenizerFile& file, const std::string& where) {
  const Fields model(file.shell["model"], cat(where, ": model"));
  return std::make_unique<WordLevel>(model, std::move(file.vocabulary));
}

}  // namespace slmc::tokenization
