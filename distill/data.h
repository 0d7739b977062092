// Training text as windows of token ids. Documents are packed one behind the other and cut into
// windows of equal length; a text with a label is a window of its own. What is learned at which
// position is a matter of the data alone: trainer and losses see ids, labels and which count.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/documents.h"
#include "formats/labels.h"
#include "formats/masking.h"

namespace slmc {

/// What is learned. kMaskedToken: tokens that were masked. kClass: a text's label.
enum class Objective { kNextToken, kMaskedToken, kClass };

/// What a network is given, and what it is to say at each position.
struct Reading {
  std::vector<int32_t> ids, labels;
  std::vector<uint8_t> learned;   ///< Whether the label counts.
  std::vector<uint8_t> compared;  ///< Whether losses over hidden states do.
  std::vector<int32_t> types{};   ///< The segment of each id; empty: all 0.
  void clear();
};

/// One stream of documents. Window w has inputs ids[w * context + i] and, for the next token,
/// labels ids[w * context + i + 1] for i < context.
///
/// A draw is a window in an epoch: epoch * windows + window, so that another epoch may mask others
/// of its tokens. It gives the same wherever and whenever it is read.
struct PackedData {
  Objective objective = Objective::kNextToken;
  int64_t context = 0;  ///< Tokens of a window; of texts with labels their mean, rounded up.
  int64_t windows = 0;
  std::vector<int32_t> ids;       ///< [windows * context + 1]
  std::vector<uint8_t> learned;   ///< Parallel to ids: whether the id counts as a label.
  std::vector<int32_t> document;  ///< Parallel to ids: which document the id belongs to; empty when
                                  ///< documents may see each other.
  int64_t documents = 0;
  int64_t cut_documents = 0;  ///< Those longer than a window.
  int64_t tokens = 0;         ///< Of the text, what the last partial window lost included.
  std::string hash;
  Masking masking{};               ///< kMaskedToken
  std::vector<int64_t> begins{};   ///< kClass: window w is ids [begins[w], begins[w + 1]).
  std::vector<int32_t> classes{};  ///< kClass: [windows]
  std::vector<int32_t> types{};    ///< kClass: parallel to ids, segments of pairs; empty: all 0.

  int64_t window(int64_t draw) const { return draw % windows; }
  int64_t length(int64_t window) const {
    const auto w = static_cast<size_t>(window);
    return begins.empty() ? context : begins[w + 1] - begins[w];
  }
  /// Appends a draw to `out`.
  void read(int64_t draw, Reading& out) const;
  struct Counts {
    int64_t learned = 0, compared = 0;
  };
  Counts count(int64_t draw) const;

  const int32_t* inputs(int64_t window) const {
    return ids.data() + (begins.empty() ? window * context : begins[static_cast<size_t>(window)]);
  }
  const int32_t* labels(int64_t window) const { return inputs(window) + 1; }
  const uint8_t* label_mask(int64_t window) const { return learned.data() + window * context + 1; }
};

/// Packs tokenized documents, shuffled by `seed` (so that a window mixes sources), into windows. A
/// text shorter than a window gives one window, padded with unlearned copies of `pad_id`. Throws
/// Error(kBadInput) if no id is learned.
PackedData pack_documents(std::vector<TokenizedDocument> documents, int64_t context, uint64_t seed,
                          bool shuffle, int32_t pad_id);

/// Reads, tokenizes (in parallel) and packs. `append_eos` ends each document with the tokenizer's
/// EOS.
PackedData load_training_data(const std::vector<std::string>& files,
                              const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                              int64_t context, bool append_eos, bool shuffle, uint64_t seed);

/// Makes text for the next token into text for masked ones: of its windows those tokens are chosen
/// that are learned and not special. Documents stay apart: an encoder is given one at a time.
void mask_documents(PackedData& data, Masking masking);

/// Texts, or pairs of them, of at most `longest` ids (formats/labels.h), each a window by itself
/// with a label among `classes`, shuffled by `seed`. Throws Error(kBadInput) for another label.
PackedData pack_labelled(const std::vector<LabelledText>& texts,
                         const std::vector<std::string>& classes, const Tokenizer& tokenizer,
                         int64_t longest, uint64_t seed);

/// Which windows each step sees: every epoch a new seeded permutation, so that any step is found
/// without replaying those before it.
class WindowOrder {
 public:
  WindowOrder(int64_t windows, uint64_t seed) : windows_(windows), seed_(seed) {}
  /// Window of the position `index` in the endless sequence of epochs.
  int64_t at(int64_t index);
  /// The same as a draw.
  int64_t draw(int64_t index) { return index / windows_ * windows_ + at(index); }

 private:
  int64_t windows_;
  uint64_t seed_;
  int64_t epoch_ = -1;
  std::vector<int32_t> order_;
};

}  // namespace slmc
