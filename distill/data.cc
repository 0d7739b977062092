#include "distill/data.h"

#include <numeric>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

/// Fisher-Yates.
template <typename T>
void shuffle_in_place(std::vector<T>& items, Random random) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random.below(i)]);
}

}  // namespace

PackedData pack_documents(std::vector<TokenizedDocument> documents, int64_t context, uint64_t seed,
                          bool shuffle, int32_t pad_id) {
  SLMC_CHECK(context > 0, "a window has at least one position");
  if (shuffle) shuffle_in_place(documents, Random(seed ^ 0x5eedda7aull));
  PackedData packed;
  packed.context = context;
  packed.documents = static_cast<int64_t>(documents.size());
  int32_t number = 0;
  for (TokenizedDocument& document : documents) {
    packed.ids.insert(packed.ids.end(), document.ids.begin(), document.ids.end());
    packed.learned.insert(packed.learned.end(), document.learned.begin(), document.learned.end());
    packed.document.insert(packed.document.end(), document.ids.size(), number++);
    packed.cut_documents += static_cast<int64_t>(document.ids.size()) > context ? 1 : 0;
    document = {};
  }
  packed.tokens = static_cast<int64_t>(packed.ids.size());
  packed.windows = std::max<int64_t>(packed.tokens > 1 ? 1 : 0, (packed.tokens - 1) / context);
  const size_t size = static_cast<size_t>(packed.windows * context + 1);
  packed.ids.resize(size, pad_id);
  packed.learned.resize(size, 0);
  packed.document.resize(size, number);
  bool any = false;
  for (size_t i = 1; i < size && !any; ++i) any = packed.learned[i] != 0;
  if (!any)
    throw_bad_input(
        "training data: no token to learn was found; give text, or documents with a response");
  Hasher hasher;
  hasher.add(packed.ids.data(), packed.ids.size() * sizeof(int32_t));
  hasher.add(packed.learned.data(), packed.learned.size());
  packed.hash = hasher.digest();
  return packed;
}

PackedData load_training_data(const std::vector<std::string>& files,
                              const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                              int64_t context, bool append_eos, bool shuffle, uint64_t seed) {
  const std::vector<Document> documents = read_documents(files, chat_template);
  std::vector<TokenizedDocument> tokenized(documents.size());
  parallel_for(static_cast<int64_t>(documents.size()), [&](int64_t i) {
    const auto index = static_cast<size_t>(i);
    tokenized[index] = tokenize_document(documents[index], tokenizer, append_eos);
  });
  return pack_documents(std::move(tokenized), context, seed, shuffle,
                        std::max<int32_t>(0, tokenizer.eos()));
}

int64_t WindowOrder::at(int64_t index) {
  const int64_t epoch = index / windows_;
  if (epoch != epoch_) {
    order_.resize(static_cast<size_t>(windows_));
    std::iota(order_.begin(), order_.end(), 0);
    shuffle_in_place(order_, Random(seed_ + 0x9e37u * static_cast<uint64_t>(epoch + 1)));
    epoch_ = epoch;
  }
  return order_[static_cast<size_t>(index % windows_)];
}

}  // namespace slmc
