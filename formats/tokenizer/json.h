// Reading and writing tokenizer.json: vocabulary and merges, which are most of its bytes, go
// straight into flat tables; the rest is a small JSON document, the shell. Nothing is interpreted
// here.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/json.h"
#include "formats/tokenizer/vocabulary.h"

namespace slmc::tokenization {

struct TokenizerFile {
  Json shell;                  ///< The document without model.vocab and model.merges.
  Vocabulary vocabulary;       ///< model.vocab.
  bool has_scores = false;     ///< model.vocab is a list of [token, score], as Unigram's.
  std::vector<double> scores;  ///< By id.
  bool has_merges = false;
  /// model.merges as strings, in order; "a b" and ["a", "b"] alike.
  std::vector<std::pair<std::string_view, std::string_view>> merges() const;

  // Merges as offsets into `merge_text`: left begins, right begins, right ends.
  struct MergeText {
    uint32_t left, right, end;
  };
  std::string merge_text;
  std::vector<MergeText> merge_places;
  void add_merge(std::string_view left, std::string_view right);
};

/// Throws Error(kBadInput) naming `where` and the byte offset.
TokenizerFile parse_tokenizer_json(std::string_view text, const std::string& where);
/// The reverse; merges as pairs of strings.
std::string tokenizer_json_text(const TokenizerFile& file);

}  // namespace slmc::tokenization
