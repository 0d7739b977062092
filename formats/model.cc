// An open checkpoint: views, rows, hashes. Opening is in model_open.cc.
#include "formats/model.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <sstream>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "formats/model_places.h"
#include "formats/output_layout.h"
#include "formats/tokenizer/tokenizer.h"

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

/// Rows [row, row + count) of a tensor in the file's type and canonical order, gathered from where
/// the file has them. A vector's elements are its rows.
std::vector<std::byte> Model::gather(const Place& place, const TensorInfo& info, int64_t row,
                                     int64_t count) {
  const int64_t rows = info.shape[0], columns = info.shape.size() == 1 ? 1 : info.shape[1];
  const uint64_t row_bytes = dtype_row_bytes(place.dtype, columns);
  std::vector<std::byte> out(row_bytes * static_cast<uint64_t>(count));
  if (place.group) {
    place.read_group(row, count, out.data());
    return out;
  }
  const std::byte* data = place.file->data() + place.offset;
  if (place.layout.transposed) {
    const int64_t stride = place.layout.rows > 0 ? place.layout.rows : rows;
    const auto size = static_cast<size_t>(dtype_block_bytes(place.dtype));
    for (int64_t c = 0; c < columns; ++c) {
      const std::byte* from =
          data + static_cast<size_t>(c * stride + place.layout.first_row + row) * size;
      for (int64_t r = 0; r < count; ++r)
        std::memcpy(out.data() + static_cast<size_t>(r * columns + c) * size,
                    from + static_cast<size_t>(r) * size, size);
    }
    return out;
  }
  for (int64_t r = 0; r < count; ++r) {
    const int64_t from = place.layout.order == GgufRows::kSame
                             ? row + r
                             : gguf_row(row + r, rows, place.layout.heads);
    std::memcpy(out.data() + row_bytes * static_cast<uint64_t>(r),
                data + row_bytes * static_cast<uint64_t>(from), row_bytes);
  }
  return out;
}

TensorView Model::view(const std::string& name) const {
  const Place& place = this->place(name);
  const TensorInfo& info = tensors_[index_.at(name)];
  if (place.plain()) return {place.file->data() + place.offset, info.dtype, info.shape, place.file};
  if (!place.adjusted()) {
    const auto copy =
        std::make_shared<std::vector<std::byte>>(gather(place, info, 0, info.shape[0]));
    return {copy->data(), info.dtype, info.shape, copy};
  }
  const auto values =
      std::make_shared<std::vector<float>>(static_cast<size_t>(element_count(info.shape)));
  const bool vector = info.shape.size() == 1;
  read_rows(name, 0, vector ? 1 : info.shape[0], values->data());
  return {reinterpret_cast<const std::byte*>(values->data()), DType::kF32, info.shape, values};
}

void Model::release(const std::string& name) const {
  const Place& place = this->place(name);
  const std::vector<int64_t>& shape = tensors_[index_.at(name)].shape;
  if (place.group) {
    for (size_t p = 0; p < place.parts.size(); ++p)
      place.parts[p].file->drop(place.parts[p].offset, place.group->parts[p].bytes);
    return;
  }
  if (place.layout.transposed) {  // Its columns lie among those of the tensors fused with it.
    place.file->drop(place.offset,
                     dtype_row_bytes(place.dtype, std::max(place.layout.rows, shape[0])) *
                         static_cast<uint64_t>(shape[1]));
    return;
  }
  place.file->drop(place.offset, dtype_row_bytes(place.dtype, shape.back()) *
                                     static_cast<uint64_t>(element_count(shape) / shape.back()));
}

void Model::read_rows(const std::string& name, int64_t row, int64_t count, float* out) const {
  const Place& place = this->place(name);
  const TensorInfo& info = tensors_[index_.at(name)];
  const bool vector = info.shape.size() == 1;
  const int64_t columns = info.shape.back();
  if (place.plain() || (!vector && place.layout.order == GgufRows::kSame &&
                        !place.layout.transposed && !place.group)) {
    decode_rows({place.file->data() + place.offset, place.dtype, info.shape, place.file}, row,
                count, out);
  } else if (count > 0) {
    const std::vector<std::byte> bytes =
        gather(place, info, vector ? 0 : row, vector ? columns : count);
    decode_rows({bytes.data(), place.dtype, {count, columns}, nullptr}, 0, count, out);
  }
  if (!place.adjusted()) return;
  for (int64_t i = 0; i < count * columns; ++i)
    out[i] = static_cast<float>(place.scale * static_cast<double>(out[i]) + place.shift);
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
    late_->tokenizer = Tokenizer::from_assets(all, cat(path_, ": tokenizer.json"), &arch_);
  });
  return *late_->tokenizer;
}

const GgufKeys* Model::gguf_keys() const { return late_->gguf ? &late_->gguf->keys : nullptr; }

std::string Model::tensor_hash(const std::string& name) const {
  const Place& place = this->place(name);
  const uint64_t bytes = tensors_[index_.at(name)].bytes;
  Hasher hasher;
  if (!place.plain()) {
    hasher.add(view(name).data, bytes);
    release(name);
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

std::vector<std::string> container_notes(const Model& model, const std::string& output) {
  std::vector<std::string> notes;
  if (!is_gguf_path(output)) return notes;
  const Family& family = family_by_name(model.arch().family);
  if (family.gguf_notes != nullptr) notes = family.gguf_notes(model.arch());
  uint64_t bytes = 0;
  for (const CarriedTensor& tensor : model.assets().carried) bytes += tensor.view.bytes();
  if (!model.assets().carried.empty()) {
    notes.push_back(cat("Only the ", family.name, " text model goes into a GGUF; ",
                        model.assets().carried.size(), " other tensors (",
                        model.assets().carried.front().name, " and on, ", human_bytes(bytes),
                        ") stay behind, a safetensors folder keeps them."));
  }
  if (!model.arch().kv_scales.empty()) {
    notes.emplace_back(
        "The fixed 8-bit scales of keys and values stay behind: a GGUF has no place for them.");
  }
  if (!model.arch().encoder && model.assets().tokenizer_json.empty()) {
    notes.emplace_back(
        "llama.cpp does not load a GGUF without a tokenizer, and this model has no "
        "tokenizer.json.");
  }
  for (std::string& note : tokenizer_gguf_notes(model.assets(), model.path()))
    notes.push_back(std::move(note));
  return notes;
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
