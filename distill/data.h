// Training text as windows of token ids: documents are packed one behind the other and cut into
// windows of equal length.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/documents.h"

namespace slmc {

/// One stream of documents. Window w has inputs ids[w * context + i] and labels ids[w * context + i
/// + 1] for i < context.
struct PackedData {
  int64_t context = 0;
  int64_t windows = 0;
  std::vector<int32_t> ids;       ///< [windows * context + 1]
  std::vector<uint8_t> learned;   ///< Parallel to ids: whether the id counts as a label.
  std::vector<int32_t> document;  ///< Parallel to ids: which document the id belongs to; empty when
                                  ///< documents may see each other.
  int64_t documents = 0;
  int64_t cut_documents = 0;  ///< Those longer than a window.
  int64_t tokens = 0;         ///< Of the text, what the last partial window lost included.
  std::string hash;

  const int32_t* inputs(int64_t window) const { return ids.data() + window * context; }
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

/// Which windows each step sees: every epoch a new seeded permutation, so that any step is found
/// without replaying those before it.
class WindowOrder {
 public:
  WindowOrder(int64_t windows, uint64_t seed) : windows_(windows), seed_(seed) {}
  /// Window of the position `index` in the endless sequence of epochs.
  int64_t at(int64_t index);

 private:
  int64_t windows_;
  uint64_t seed_;
  int64_t epoch_ = -1;
  std::vector<int32_t> order_;
};

}  // namespace slmc
