// Model::open: finds out what a path is, turns its configuration into an architecture, and checks
// that exactly the tensors of that architecture are there, before any weight is read.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "formats/family.h"
#include "formats/gguf.h"
#include "formats/model_places.h"
#include "formats/output_layout.h"
#include "formats/safetensors.h"

namespace slmc {
namespace fs = std::filesystem;

namespace {

/// A tensor as it lies in a file of either container.
struct Found {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t offset, bytes;
  std::shared_ptr<const MappedFile> file;
  bool used = false;
};

}  // namespace

class ModelReader {
 public:
  explicit ModelReader(const std::string& path) : path_(path), model_(new Model()) {
    model_->path_ = path;
  }

  std::shared_ptr<const Model> read() {
    if (fs::is_directory(path_)) {
      open_folder();
    } else {
      const auto file = MappedFile::open(path_);
      if (file->size() < 4 || std::memcmp(file->data(), "GGUF", 4) != 0) {
        const bool weights = fs::path(path_).extension() == ".safetensors";
        throw_bad_input(cat(path_,
                            ": expected a Hugging Face folder (with config.json) or a GGUF file; ",
                            weights ? "give the folder that holds this file" : "this is neither"));
      }
      open_gguf();
    }
    return model_;
  }

 private:
  void open_folder() {
    model_->container_ = "safetensors";
    const std::string config_path = path_ + "/config.json";
    if (!fs::exists(config_path))
      throw_bad_input(
          cat(path_, ": config.json is not there; expected a Hugging Face folder or a .gguf file"));
    model_->config_ = read_json(config_path);
    const Family& family = family_for_config(model_->config_, config_path);
    model_->arch_ = family.from_config(model_->config_, config_path);
    for (const SafetensorsFile& file : open_safetensors_folder(path_)) {
      model_->size_bytes_ += file.file->size();
      for (const SafetensorsEntry& entry : file.tensors)
        found_.push_back(
            {entry.name, entry.dtype, entry.shape, entry.offset, entry.bytes, file.file});
      for (const auto& item : file.metadata) {
        // What the shards say in common is taken once; each has hashes of its own tensors.
        if (item.first == kHashesKey ||
            std::find(model_->metadata_.begin(), model_->metadata_.end(), item) ==
                model_->metadata_.end())
          model_->metadata_.push_back(item);
      }
    }
    take_tensors(family, false);
    // Buffers that some versions of transformers saved; the architecture says them.
    refuse_unknown([](const std::string& name) { return name.ends_with(".rotary_emb.inv_freq"); });
    model_->late_->read_assets = [folder = path_] { return read_folder_assets(folder); };
  }

  void open_gguf() {
    model_->container_ = "gguf";
    model_->late_->gguf = std::make_unique<const GgufFile>(GgufFile::open(path_));
    const GgufFile& gguf = *model_->late_->gguf;
    const Family& family = family_by_name(gguf.keys.string("general.architecture", path_));
    model_->arch_ = family.from_gguf(gguf, path_);
    model_->size_bytes_ = gguf.file->size();
    for (const GgufTensor& tensor : gguf.tensors)
      found_.push_back(
          {tensor.name, tensor.dtype, tensor.shape, tensor.offset, tensor.bytes, gguf.file});
    take_tensors(family, true);
    refuse_unknown([](const std::string& name) { return name == "rope_freqs.weight"; });
    for (const auto& [key, value] : gguf.keys.items()) {
      const auto* text = std::get_if<std::string>(&value);
      if (text != nullptr && (key.starts_with("slmc.") || key == "general.name"))
        model_->metadata_.emplace_back(key, *text);
    }
    const std::string config = gguf.keys.string_or("slmc.config", "", path_);
    const Json original =
        config.empty() ? Json::object() : parse_json(config, cat(path_, ": key slmc.config"));
    if (!config.empty()) {  // The configuration's token ids; the tokenizer's keys may name others.
      const Architecture said = family.from_config(original, cat(path_, ": key slmc.config"));
      model_->arch_.bos = said.bos;
      model_->arch_.eos = said.eos;
      model_->arch_.pad = said.pad;
    }
    try {
      model_->config_ = family.to_config(model_->arch_, original);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kUnsupported) throw;
      model_->config_ = original;  // No config.json can say this; writing one will tell why.
    }
    model_->late_->read_assets = [keys = &gguf.keys, path = path_] {
      Assets assets = tokenizer_from_gguf(*keys, path);
      assets.generation_config_json =
          keys->string_or("slmc.generation_config", assets.generation_config_json, path);
      assets.special_tokens_map_json =
          keys->string_or("slmc.special_tokens_map", assets.special_tokens_map_json, path);
      return assets;
    };
  }

  void take_tensors(const Family& family, bool gguf) {
    Architecture& arch = model_->arch_;
    if (arch.layers > static_cast<int64_t>(found_.size())) {
      throw_bad_input(cat(path_, ": the configuration says ", arch.layers, " layers, but only ",
                          found_.size(), " tensors are there"));
    }
    std::map<std::string, Found*> by_name;
    for (Found& found : found_) by_name[found.name] = &found;
    for (const TensorSpec& spec : family.tensors(arch)) {
      const std::string& name = gguf ? spec.name : spec.hf_name;
      const auto place = by_name.find(name);
      if (place == by_name.end())
        throw_bad_input(cat(path_, ": tensor ", name, " ", shape_text(spec.shape), " is missing"));
      take(spec, *place->second, gguf);
    }
    if (arch.tied && !gguf) take_tied_head(by_name);
  }

  void take(const TensorSpec& spec, Found& found, bool gguf) {
    if (found.shape != spec.shape) {
      throw_bad_input(cat(found.file->path(), ": tensor ", found.name, ": expected shape ",
                          shape_text(spec.shape), " by the configuration, found ",
                          shape_text(found.shape)));
    }
    if (!dtype_is_float(found.dtype) && dtype_block(found.dtype) == 1) {
      throw_unsupported(cat(found.file->path(), ": tensor ", found.name, ": weights of type ",
                            dtype_name(found.dtype), "; f32, f16 and bf16 are read"));
    }
    const bool permuted = gguf && spec.gguf_rows == GgufRows::kRopePairs;
    if (permuted && spec.shape.size() == 1 && dtype_block(found.dtype) != 1) {
      throw_unsupported(cat(found.file->path(), ": tensor ", found.name, ": a bias of type ",
                            dtype_name(found.dtype)));
    }
    found.used = true;
    model_->index_[spec.name] = model_->tensors_.size();
    model_->tensors_.push_back({spec.name, found.name, found.dtype, spec.shape, found.bytes});
    model_->places_.push_back(
        {found.file, found.offset, permuted ? spec.gguf_rows : GgufRows::kSame, spec.heads});
    model_->arch_.parameters += element_count(spec.shape);
  }

  /// A head stored though tied must be the embedding; else the file and its configuration
  /// contradict each other.
  void take_tied_head(const std::map<std::string, Found*>& by_name) {
    const auto place = by_name.find("lm_head.weight");
    if (place == by_name.end()) return;
    Found& head = *place->second;
    const size_t embedding = model_->index_.at("token_embd.weight");
    const TensorInfo& info = model_->tensors_[embedding];
    const auto& at = model_->places_[embedding];
    const bool same =
        head.dtype == info.dtype && head.shape == info.shape &&
        std::memcmp(head.file->data() + head.offset, at.file->data() + at.offset, head.bytes) == 0;
    head.file->drop(head.offset, head.bytes);
    at.file->drop(at.offset, info.bytes);
    if (!same) {
      throw_bad_input(cat(head.file->path(),
                          ": tensor lm_head.weight differs from the embedding, though config.json "
                          "says tie_word_embeddings; "
                          "set it to false if the head is its own"));
    }
    head.used = true;
  }

  template <typename Ignored>
  void refuse_unknown(const Ignored& ignored) {
    for (const Found& found : found_) {
      if (!found.used && !ignored(found.name)) {
        throw_bad_input(cat(found.file->path(), ": byte ", found.offset, ": tensor ", found.name,
                            " is not one that ", model_->arch_.family, " has"));
      }
    }
  }

  const std::string& path_;
  std::shared_ptr<Model> model_;
  std::vector<Found> found_;
};

std::shared_ptr<const Model> Model::open(const std::string& path) {
  return ModelReader(path).read();
}

}  // namespace slmc
