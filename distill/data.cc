#include "distill/data.h"

#include <algorithm>
#include <numeric>
#include <span>
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

void Reading::clear() {
  ids.clear();
  labels.clear();
  learned.clear();
  compared.clear();
  types.clear();
}

void PackedData::read(int64_t draw, Reading& out) const {
  const int64_t w = window(draw), count = length(w);
  const size_t at = out.ids.size(), end = at + static_cast<size_t>(count);
  out.ids.insert(out.ids.end(), inputs(w), inputs(w) + count);
  if (objective == Objective::kNextToken) {
    out.labels.insert(out.labels.end(), labels(w), labels(w) + count);
    out.learned.insert(out.learned.end(), label_mask(w), label_mask(w) + count);
    out.compared.insert(out.compared.end(), label_mask(w), label_mask(w) + count);
    return;
  }
  out.learned.resize(end, 0);
  if (objective == Objective::kClass) {
    if (!types.empty()) {
      const int32_t* const segments = types.data() + begins[static_cast<size_t>(w)];
      out.types.insert(out.types.end(), segments, segments + count);
    }
    out.labels.resize(end, 0);
    out.labels[at] = classes[static_cast<size_t>(w)];
    out.learned[at] = 1;
    out.compared.resize(end, 1);
    return;
  }
  const uint8_t* const candidates = learned.data() + w * context;
  out.labels.insert(out.labels.end(), inputs(w), inputs(w) + count);
  out.compared.insert(out.compared.end(), candidates, candidates + count);
  mask_tokens(masking, static_cast<uint64_t>(draw), std::span(out.ids).subspan(at), candidates,
              out.learned.data() + at);
}

PackedData::Counts PackedData::count(int64_t draw) const {
  if (objective == Objective::kClass) return {1, length(window(draw))};
  Reading reading;
  read(draw, reading);
  const auto sum = [](const std::vector<uint8_t>& flags) {
    return std::accumulate(flags.begin(), flags.end(), int64_t{0});
  };
  return {sum(reading.learned), sum(reading.compared)};
}

void mask_documents(PackedData& data, Masking masking) {
  data.objective = Objective::kMaskedToken;
  data.masking = std::move(masking);
  Hasher hasher;
  hasher.add(data.hash.data(), data.hash.size());
  hasher.add(&data.masking.mask, sizeof(data.masking.mask));
  data.hash = hasher.digest();
}

PackedData pack_labelled(const std::vector<LabelledText>& texts,
                         const std::vector<std::string>& classes, const Tokenizer& tokenizer,
                         int64_t longest, uint64_t seed) {
  PackedData packed;
  packed.objective = Objective::kClass;
  packed.windows = packed.documents = static_cast<int64_t>(texts.size());
  if (texts.empty()) throw_bad_input("training data: no text with a label was found");
  std::vector<size_t> order(texts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  shuffle_in_place(order, Random(seed ^ 0x5eedda7aull));
  std::vector<Encoding> encoded(texts.size());
  std::vector<uint8_t> cut(texts.size());
  parallel_for(packed.windows, [&](int64_t i) {
    const auto w = static_cast<size_t>(i);
    bool shortened = false;
    const LabelledText& text = texts[order[w]];
    encoded[w] = encode_within(tokenizer, text.text, text.pair, longest, &shortened);
    cut[w] = shortened ? 1 : 0;
  });
  packed.begins.push_back(0);
  bool any_types = false;
  for (size_t w = 0; w < texts.size(); ++w) {
    const LabelledText& text = texts[order[w]];
    const auto& [ids, types] = encoded[w];
    const int64_t number = class_of(classes, text.label);
    if (number < 0)
      throw_bad_input(cat(text.source, ": label '", text.label, "' is none of the ", classes.size(),
                          " classes", did_you_mean(text.label, classes)));
    if (ids.empty()) throw_bad_input(cat(text.source, ": \"text\" gives no token"));
    packed.classes.push_back(static_cast<int32_t>(number));
    packed.ids.insert(packed.ids.end(), ids.begin(), ids.end());
    packed.types.insert(packed.types.end(), types.begin(), types.end());
    packed.types.resize(packed.ids.size(), 0);
    any_types = any_types || !types.empty();
    packed.begins.push_back(static_cast<int64_t>(packed.ids.size()));
    packed.cut_documents += cut[w];
  }
  if (!any_types) packed.types.clear();
  packed.tokens = static_cast<int64_t>(packed.ids.size());
  packed.context = (packed.tokens + packed.windows - 1) / packed.windows;
  Hasher hasher;
  hasher.add(packed.ids.data(), packed.ids.size() * sizeof(int32_t));
  hasher.add(packed.begins.data(), packed.begins.size() * sizeof(int64_t));
  hasher.add(packed.classes.data(), packed.classes.size() * sizeof(int32_t));
  hasher.add(packed.types.data(), packed.types.size() * sizeof(int32_t));
  packed.hash = hasher.digest();
  return packed;
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
