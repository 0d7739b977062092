// An open checkpoint: views, rows, hashes. Opening is in model_open.cc.
#include "formats/model.h"

#include <algorithm>
#include <mutex>
#include <sstream>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "formats/model_places.h"
#include "formats/output_layout.h"
#include "formats/tokenizer.h"

namespace slmc {
namespace {

constexpr uint64_t kPiece = 16 << 20;  // Bytes hashed at a time.

}  // namespace

Model::Model() : late_(std::make_unique<Late>()) {}
Model::~Model() = default;

bool Model::has(const std::string& name) const { return index_.count(name) > 0; }

const Model::Place& Model::place(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end())
    throw_bad_input(cat(path_, ": tensor ", name, " is not in this model"));
  return places_[found->second];
}

const TensorInfo& Model::info(const std::string& name) const {
  place(name);
  return tensors_[index_.at(name)];
}

TensorView Model::view(const std::string& name) const {
  const Place& place = this->place(name);
  const TensorInfo& info = tensors_[index_.at(name)];
  const std::byte* data = place.file->data() + place.offset;
  if (place.rows == GgufRows::kSame) return {data, info.dtype, info.shape, place.file};
  // Rows in another order are put into a copy of their own.
  const auto copy = std::make_shared<std::vector<std::byte>>(info.bytes);
  const int64_t rows = info.shape[0];  // A bias is permuted by element.
  const uint64_t row_bytes = info.bytes / static_cast<uint64_t>(rows);
  for (int64_t row = 0; row < rows; ++row) {
    const auto from = static_cast<uint64_t>(gguf_row(row, rows, place.heads));
    std::copy_n(data + from * row_bytes, row_bytes,
                copy->data() + static_cast<uint64_t>(row) * row_bytes);
  }
  return {copy->data(), info.dtype, info.shape, copy};
}

void Model::release(const std::string& name) const {
  const Place& place = this->place(name);
  place.file->drop(place.offset, tensors_[index_.at(name)].bytes);
}

void Model::read_rows(const std::string& name, int64_t row, int64_t count, float* out) const {
  const Place& place = this->place(name);
  const TensorInfo& info = tensors_[index_.at(name)];
  const TensorView stored{place.file->data() + place.offset, info.dtype, info.shape, place.file};
  if (place.rows == GgufRows::kSame) {
    decode_rows(stored, row, count, out);
    return;
  }
  // A vector (a bias) is permuted by element; as a column it is a matrix of one-element rows.
  TensorView matrix = stored;
  matrix.shape = {info.shape[0], info.shape.size() == 1 ? 1 : info.shape[1]};
  const int64_t first = info.shape.size() == 1 ? 0 : row;
  const int64_t last = info.shape.size() == 1 ? info.shape[0] : row + count;
  for (int64_t i = first; i < last; ++i) {
    decode_rows(matrix, gguf_row(i, info.shape[0], place.heads), 1,
                out + (i - first) * matrix.shape[1]);
  }
}

const Assets& Model::assets() const {
  std::call_once(late_->assets_once, [this] { late_->assets = late_->read_assets(); });
  return late_->assets;
}

const Tokenizer& Model::tokenizer() const {
  std::call_once(late_->tokenizer_once, [this] {
    const Assets& all = assets();
    if (all.tokenizer_json.empty())
      throw_bad_input(cat(path_, ": the model has no tokenizer.json"));
    const Json config =
        all.tokenizer_config_json.empty()
            ? Json()
            : parse_json(all.tokenizer_config_json, cat(path_, ": tokenizer_config.json"));
    late_->tokenizer =
        Tokenizer::from_json(all.tokenizer_json, config, cat(path_, ": tokenizer.json"));
  });
  return *late_->tokenizer;
}

const GgufKeys* Model::gguf_keys() const { return late_->gguf ? &late_->gguf->keys : nullptr; }

std::string Model::tensor_hash(const std::string& name) const {
  const Place& place = this->place(name);
  const uint64_t bytes = tensors_[index_.at(name)].bytes;
  Hasher hasher;
  if (place.rows != GgufRows::kSame) {
    hasher.add(view(name).data, bytes);
    place.file->drop(place.offset, bytes);
    return hasher.digest();
  }
  for (uint64_t at = 0; at < bytes; at += kPiece) {
    const uint64_t size = std::min(kPiece, bytes - at);
    hasher.add(place.file->data() + place.offset + at, size);
    place.file->drop(place.offset + at, size);
  }
  return hasher.digest();
}

std::vector<std::pair<std::string, std::string>> Model::stored_hashes() const {
  std::vector<std::pair<std::string, std::string>> hashes;
  for (const auto& [key, text] : metadata_) {
    if (key != kHashesKey) continue;
    std::istringstream items(text);
    for (std::string item; std::getline(items, item, ',');) {
      const size_t equals = item.find('=');
      if (equals != std::string::npos)
        hashes.emplace_back(item.substr(0, equals), item.substr(equals + 1));
    }
  }
  return hashes;
}

std::string Model::content_hash() const {
  std::vector<std::string> hashes(tensors_.size());
  parallel_for(static_cast<int64_t>(tensors_.size()), [&](int64_t i) {
    hashes[static_cast<size_t>(i)] = tensor_hash(tensors_[static_cast<size_t>(i)].name);
  });
  std::string facts = config_.dump();
  for (size_t i = 0; i < tensors_.size(); ++i) {
    facts += cat("\n", tensors_[i].name, " ", dtype_name(tensors_[i].dtype), " ",
                 shape_text(tensors_[i].shape), " ", hashes[i]);
  }
  return hash_bytes(facts.data(), facts.size());
}

void decode_rows(const TensorView& view, int64_t row, int64_t count, float* out) {
  SLMC_CHECK(row >= 0 && count >= 0 && row + count <= view.rows(),
             cat("rows ", row, " to ", row + count, " of ", view.rows()));
  block_codec(view.dtype).decode(view.row(row), count * view.columns(), out);
}

void MemoryWeights::add(const std::string& name, TensorView view) {
  SLMC_CHECK(!has(name), cat("tensor ", name, " is there already"));
  tensors_.emplace_back(name, std::move(view));
}

bool MemoryWeights::has(const std::string& name) const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [&name](const auto& tensor) { return tensor.first == name; });
}

TensorView MemoryWeights::view(const std::string& name) const {
  for (const auto& [held, view] : tensors_) {
    if (held == name) return view;
  }
  throw_bad_input(cat("tensor ", name, " is not among the weights in memory"));
}

}  // namespace slmc
