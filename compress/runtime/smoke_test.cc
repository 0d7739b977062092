#include "compress/runtime/smoke_test.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/encoder.h"
#include "compress/runtime/layer_weights.h"
#include "compress/runtime/not_finite.h"
#include "compress/runtime/streamed_bytes.h"
#include "formats/adapter.h"

namespace slmc {
namespace {

constexpr int64_t kTokens = 32;
constexpr int64_t kHeadRows = 16384;  ///< Of an embedding or a head, resident at once.

int64_t token_count(const Architecture& arch, int64_t taken = 0) {
  return arch.context > 0 ? std::min(kTokens, arch.context - taken) : kTokens;
}

/// A model with `rows` in the place of the embedding or head `name`: a smaller vocabulary.
class PartialVocabulary : public WeightSource {
 public:
  PartialVocabulary(const WeightSource& model, std::string name, TensorView rows)
      : model_(model), arch_(model.arch()), name_(std::move(name)), rows_(std::move(rows)) {
    arch_.vocab = rows_.rows();
  }
  const Architecture& arch() const override { return arch_; }
  bool has(const std::string& name) const override { return model_.has(name); }
  TensorView view(const std::string& name) const override {
    return name == name_ ? rows_ : model_.view(name);
  }
  void release(const std::string& name) const override { model_.release(name); }

 private:
  const WeightSource& model_;
  Architecture arch_;
  std::string name_;
  TensorView rows_;
};

/// What enters the first block, [ids][hidden]; only the ids' rows of the embedding are read.
std::vector<float> embed(const WeightSource& model, std::span<const int32_t> ids) {
  const std::string name = "token_embd.weight";
  TensorView rows = model.view(name);
  const auto bytes = std::make_shared<std::vector<std::byte>>();
  std::vector<int32_t> places;
  for (const int32_t id : ids) {
    places.push_back(static_cast<int32_t>(places.size()));
    bytes->insert(bytes->end(), rows.row(id), rows.row(id) + rows.row_bytes());
  }
  rows.data = bytes->data();
  rows.shape = {std::ssize(ids), rows.columns()};
  rows.owner = bytes;
  model.release(name);
  std::vector<float> stream(ids.size() * static_cast<size_t>(model.arch().hidden));
  const PartialVocabulary weights(model, name, std::move(rows));
  PartialDecoder::create(weights, {.embedding = true})->embed(places, stream.data());
  return stream;
}

/// [tokens, vocab] behind the last block.
std::vector<float> head_logits(const WeightSource& model, const std::vector<float>& stream,
                               int64_t tokens) {
  const std::string name = logits_weight_name(model.arch());
  const int64_t vocab = model.arch().vocab;
  const TensorView whole = model.view(name);
  std::vector<float> logits(static_cast<size_t>(tokens * vocab)), some;
  for (int64_t begin = 0; begin < vocab; begin += kHeadRows) {
    const int64_t count = std::min(kHeadRows, vocab - begin);
    TensorView rows = whole;
    rows.data = whole.row(begin);
    rows.shape = {count, whole.columns()};
    const PartialVocabulary weights(model, name, std::move(rows));
    const auto head = PartialDecoder::create(weights, {.head = true});
    some.resize(static_cast<size_t>(tokens * count));
    head->run_head(*head->new_cache(tokens), stream.data(), tokens, some.data(), {});
    for (int64_t t = 0; t < tokens; ++t)
      std::copy_n(some.begin() + t * count, count, logits.begin() + t * vocab + begin);
  }
  return logits;
}

}  // namespace

std::vector<int32_t> smoke_tokens(const WeightSource& model) {
  const int64_t count = token_count(model.arch(), side_shape(model).prompt_tokens);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>((i * 7919 + 1) % model.arch().vocab));
  return ids;
}

std::vector<float> smoke_logits(const WeightSource& model, std::span<const int32_t> ids) {
  const Architecture& arch = model.arch();
  const int64_t count = std::ssize(ids);
  if (arch.encoder) return Encoder::create(model, Activations::kF32)->encode(ids);
  if (side_shape(model).prompt_tokens > 0) {
    const auto decoder = Decoder::create(model, Activations::kF32);
    std::vector<float> logits(static_cast<size_t>(count * arch.vocab));
    decoder->forward(*decoder->new_cache(count), ids, logits.data(), false);
    return logits;
  }
  std::vector<float> stream = embed(model, ids);
  for (int64_t layer = 0; layer < arch.layers; ++layer) {
    const auto block = PartialDecoder::create(model, {.layer = layer});
    block->run_block(*block->new_cache(count), stream.data(), count, {});
  }
  return head_logits(model, stream, count);
}

void smoke_test(const Model& model) {
  const std::vector<float> logits = smoke_logits(model, smoke_tokens(model));
  const auto bad =
      std::find_if(logits.begin(), logits.end(), [](float value) { return !std::isfinite(value); });
  const int64_t at = bad - logits.begin(), vocab = std::max<int64_t>(1, model.arch().vocab);
  if (bad != logits.end())
    throw_not_finite(cat(model.path(),
                         ": the written model gives a logit that is not finite for token ",
                         at % vocab, " at position ", at / vocab));
}

uint64_t smoke_test_bytes(const Architecture& arch, const std::vector<PlanRow>& rows) {
  std::map<std::string, uint64_t> pieces;
  uint64_t whole = 0, piece = 0, pages = 0;
  for (const PlanRow& row : rows) {
    const std::string& name = row.tensor;
    uint64_t bytes = row.bytes_after > 0 ? row.bytes_after : row.bytes_before;
    uint64_t repacked = repacked_bytes(bytes, element_count(row.new_shape));
    if (!arch.encoder && (name == "token_embd.weight" || name == "output.weight")) {
      const auto all = static_cast<uint64_t>(std::max(kHeadRows, row.new_shape[0]));
      bytes = bytes * kHeadRows / all;
      repacked = repacked * kHeadRows / all;
    }
    pages = std::max(pages, bytes);
    const bool block = name.starts_with("blk.");
    piece = std::max(piece, pieces[block ? name.substr(0, name.find('.', 4)) : name] += repacked);
    whole += repacked;
  }
  const int64_t row = 2 * arch.layers * arch.kv_heads * arch.head_dim + arch.vocab + arch.hidden;
  return (arch.encoder ? whole : piece) + pages +
         static_cast<uint64_t>(token_count(arch) * row) * sizeof(float);
}

}  // namespace slmc
