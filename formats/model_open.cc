// Model::open: finds out what a path is, turns its configuration into an architecture, and checks
// that exactly the tensors of that architecture are there, before any weight is read.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/bert.h"
#include "formats/block_codec.h"
#include "formats/family.h"
#include "formats/gguf.h"
#include "formats/hub_cache.h"
#include "formats/kv_scales.h"
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

/// A GGUF of slmc's own holds its config.json; keys that were changed since then contradict it.
void check_keys(const Family& family, const Architecture& arch, const GgufFile& gguf,
                const std::string& path) {
  GgufKeys expected;
  family.to_gguf(arch, expected);
  using Plain = GgufValue::variant;
  for (const auto& [key, value] : expected.items()) {
    const GgufValue* found = gguf.keys.find(key);
    if (found != nullptr && static_cast<const Plain&>(*found) == static_cast<const Plain&>(value))
      continue;
    throw_bad_input(cat(path, ": key ", key,
                        found == nullptr ? " is missing" : " has another value",
                        " than slmc.config says; remove the key slmc.config to go by the others"));
  }
  for (const auto& [name, values] : rope_tensors(arch.rope)) {
    const GgufTensor* tensor = gguf.find(name);
    bool same = tensor != nullptr && tensor->dtype == DType::kF32 &&
                tensor->bytes == values.size() * sizeof(float);
    for (size_t i = 0; same && i < values.size(); ++i) {
      float found = 0;
      std::memcpy(&found, gguf.file->data() + tensor->offset + i * sizeof found, sizeof found);
      same = std::abs(found - values[i]) <= 1e-5f * values[i];
    }
    if (!same)
      throw_bad_input(cat(path, ": tensor ", name, " does not hold what slmc.config says"));
  }
}

}  // namespace

class ModelReader {
 public:
  ModelReader(const std::string& path, const std::string& output)
      : path_(path), output_(output), model_(new Model()) {
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
    if (is_gguf_path(output_)) fold_query_scale();
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
    if (model_->config_.is_object()) read_pooling(path_, model_->config_);
    const Family& family = family_for_config(model_->config_, config_path);
    model_->arch_ = family.from_config(model_->config_, config_path);
    for (const SafetensorsFile& file : open_safetensors_folder(path_)) {
      model_->size_bytes_ += file.file->size();
      if (fs::path(file.file->path()).extension() != ".safetensors") model_->container_ = "pytorch";
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
    if (fixes_cache(model_->config_)) take_kv_scales(family);
    const std::vector<CarriedTensor> carried = take_extras(family);
    model_->late_->read_assets = [folder = path_, carried] {
      Assets assets = read_folder_assets(folder);
      assets.carried = carried;
      return assets;
    };
  }

  void open_gguf() {
    model_->container_ = "gguf";
    model_->late_->gguf = std::make_unique<const GgufFile>(GgufFile::open(path_));
    const GgufFile& gguf = *model_->late_->gguf;
    model_->size_bytes_ = gguf.file->size();
    const std::string config = gguf.keys.string_or("slmc.config", "", path_);
    const Json original =
        config.empty() ? Json::object() : parse_json(config, cat(path_, ": key slmc.config"));
    const std::string name = gguf.keys.string("general.architecture", path_);
    const Family& family = config.empty()
                               ? family_for_gguf(name, path_)
                               : family_for_config(original, cat(path_, ": key slmc.config"));
    if (config.empty()) {
      model_->arch_ = family.from_gguf(gguf, path_);
    } else {
      if (gguf_architecture(family) != name) {
        throw_bad_input(cat(path_, ": key general.architecture: ", name, ", but slmc.config is of ",
                            family.name));
      }
      model_->arch_ = family.from_config(original, cat(path_, ": key slmc.config"));
      check_keys(family, model_->arch_, gguf, path_);
    }
    for (const GgufTensor& tensor : gguf.tensors)
      found_.push_back(
          {tensor.name, tensor.dtype, tensor.shape, tensor.offset, tensor.bytes, gguf.file});
    take_tensors(family, true);
    for (const Found& found : found_) {
      if (!found.used && !found.name.starts_with("rope_f")) refuse(found);
    }
    for (const auto& [key, value] : gguf.keys.items()) {
      const auto* text = std::get_if<std::string>(&value);
      if (text != nullptr && (key.starts_with("slmc.") || key == "general.name"))
        model_->metadata_.emplace_back(key, *text);
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
    const auto spelled = [&](const std::string& name) {
      return gguf || family.hf_spelling == nullptr ? name : family.hf_spelling(name);
    };
    for (Found& found : found_) by_name[spelled(found.name)] = &found;
    for (const TensorSpec& spec : family.tensors(arch)) {
      const FilePlace& at = gguf ? spec.gguf : spec.hf;
      if (!gguf && take_group(spec, at, by_name)) continue;
      const auto place = by_name.find(spelled(at.name));
      if (place == by_name.end()) {
        throw_bad_input(cat(path_, ": tensor ", at.name, " ", shape_text(stored_shape(spec, at)),
                            " is missing"));
      }
      take(spec, at, *place->second);
    }
    if (gguf) return;
    for (const auto& [copy, original] : family.hf_copies) {
      const auto place = by_name.find(spelled(copy));
      if (place != by_name.end() && !place->second->used && model_->has(original))
        take_copy(*place->second, original);
    }
  }

  /// A weight that compressed-tensors keeps as several tensors; false if it is not one.
  bool take_group(const TensorSpec& spec, const FilePlace& at,
                  const std::map<std::string, Found*>& by_name) {
    const std::string stem = at.name.substr(0, at.name.rfind('.') + 1);
    const auto find = [&](const std::string& suffix) {
      const auto found = by_name.find(stem + suffix);
      return found == by_name.end() ? nullptr : found->second;
    };
    const Found* scale = find("weight_scale");
    if (spec.shape.size() != 2 || !at.name.ends_with(".weight") || scale == nullptr) return false;
    const std::string where = cat(scale->file->path(), ": tensor ", at.name);
    for (const char* other : {"weight_g_idx", "input_zero_point"}) {
      if (find(other) != nullptr) throw_unsupported(cat(where, ": ", other, " is not supported"));
    }
    const Found* packed = find("weight_packed");
    const std::vector<int64_t> shape = stored_shape(spec, at);
    const int64_t groups = scale->shape.size() == 2 ? scale->shape[1] : 0;
    if (groups < 1 || (scale->dtype != DType::kBF16 && scale->dtype != DType::kF16) ||
        (packed != nullptr && packed->shape.size() != 2)) {
      throw_unsupported(cat(where,
                            ": expected compressed-tensors' pack-quantized or int-quantized "
                            "layout with f16 or bf16 scales; found scales of type ",
                            dtype_name(scale->dtype), " ", shape_text(scale->shape)));
    }
    const GroupFacts facts{
        .bits = packed == nullptr ? 8 : static_cast<int>(packed->shape[1] * 32 / shape[1]),
        .group = weight_group(model_->config_),
        .zero_point = find("weight_zero_point") != nullptr,
        .inputs = input_rounding(model_->config_)};
    Model::Place place{.dtype = group_type(facts, where)};
    place.group = group_weight(place.dtype, shape, at.first_row, spec.shape[0], scale->dtype,
                               packed != nullptr, at.name);
    for (const GroupPart& part : place.group->parts) {
      Found* found = find(part.suffix);
      if (found == nullptr) {
        throw_bad_input(
            cat(path_, ": tensor ", stem, part.suffix, " ", shape_text(part.shape), " is missing"));
      }
      if (found->dtype != part.dtype || found->shape != part.shape) {
        throw_bad_input(cat(found->file->path(), ": tensor ", found->name, ": expected ",
                            dtype_name(part.dtype), " ", shape_text(part.shape), ", found ",
                            dtype_name(found->dtype), " ", shape_text(found->shape)));
      }
      found->used = true;
      place.parts.push_back({found->file, found->offset});
    }
    model_->index_[spec.name] = model_->tensors_.size();
    model_->tensors_.push_back(
        {spec.name, at.name, place.dtype, spec.shape,
         dtype_row_bytes(place.dtype, shape[1]) * static_cast<uint64_t>(spec.shape[0])});
    model_->places_.push_back(std::move(place));
    model_->arch_.parameters += element_count(spec.shape);
    return true;
  }

  void take(const TensorSpec& spec, const FilePlace& at, Found& found) {
    const std::vector<int64_t> stored = stored_shape(spec, at);
    if (found.shape != stored) {
      throw_bad_input(cat(found.file->path(), ": tensor ", found.name, ": expected shape ",
                          shape_text(stored), " by the configuration, found ",
                          shape_text(found.shape)));
    }
    if (!dtype_is_float(found.dtype) && dtype_block(found.dtype) == 1) {
      throw_unsupported(cat(found.file->path(), ": tensor ", found.name, ": weights of type ",
                            dtype_name(found.dtype), "; f32, f16 and bf16 are read"));
    }
    const bool vector = spec.shape.size() == 1;
    if (vector && dtype_block(found.dtype) != 1 &&
        (at.order != GgufRows::kSame || at.rows > 0 || at.shift != 0)) {
      throw_unsupported(cat(found.file->path(), ": tensor ", found.name, ": a vector of type ",
                            dtype_name(found.dtype)));
    }
    const int64_t rows = spec.shape[0], columns = vector ? 1 : spec.shape[1];
    const uint64_t row_bytes =
        dtype_row_bytes(found.dtype, vector && at.rows == 0 ? rows : columns);
    const uint64_t first = at.transposed ? 0 : static_cast<uint64_t>(at.first_row) * row_bytes;
    const uint64_t bytes =
        vector && at.rows == 0 ? row_bytes : row_bytes * static_cast<uint64_t>(rows);
    found.used = true;
    model_->index_[spec.name] = model_->tensors_.size();
    const std::string part =
        at.rows > 0 ? cat("[", at.first_row, ":", at.first_row + rows, "]") : std::string();
    model_->tensors_.push_back({spec.name, found.name + part, found.dtype, spec.shape, bytes});
    Model::Place place{
        .file = found.file, .offset = found.offset + first, .dtype = found.dtype, .layout = at};
    if (at.shift != 0) adjust(place, model_->tensors_.back(), 1.0, -static_cast<double>(at.shift));
    model_->places_.push_back(std::move(place));
    model_->arch_.parameters += element_count(spec.shape);
  }

  /// Composes canonical = scale * (what the place gave so far) + shift.
  static void adjust(Model::Place& place, TensorInfo& info, double scale, double shift) {
    place.shift = scale * place.shift + shift;
    place.scale *= scale;
    info.dtype = DType::kF32;
    info.bytes = static_cast<uint64_t>(element_count(info.shape)) * sizeof(float);
  }

  /// Multiplies the queries so that the scale which llama.cpp uses gives the model's products.
  void fold_query_scale() {
    Architecture& arch = model_->arch_;
    const double implied = implied_query_scale(arch), ratio = query_scale(arch) / implied;
    if (static_cast<float>(ratio) == 1.0f) return;
    for (size_t i = 0; i < model_->tensors_.size(); ++i) {
      const std::string& name = model_->tensors_[i].name;
      const char* part = arch.qk_norm ? ".attn_q_norm." : ".attn_q.";
      if (name.find(part) == std::string::npos) continue;
      const double offset = arch.qk_norm ? arch.norm_offset : 0.0;
      adjust(model_->places_[i], model_->tensors_[i], ratio, offset * ratio - offset);
    }
    arch.attention_scale = implied;
    model_->config_ = family_by_name(arch.family).to_config(arch, model_->config_);
  }

  /// A tensor stored though it is another one's copy must equal it; else the file and its
  /// configuration contradict each other.
  void take_copy(Found& copy, const std::string& original) {
    const size_t index = model_->index_.at(original);
    const TensorInfo& info = model_->tensors_[index];
    const auto& at = model_->places_[index];
    const bool same =
        copy.dtype == info.dtype && copy.shape == info.shape &&
        std::memcmp(copy.file->data() + copy.offset, at.file->data() + at.offset, copy.bytes) == 0;
    copy.file->drop(copy.offset, copy.bytes);
    model_->release(original);
    if (!same) {
      throw_bad_input(cat(copy.file->path(), ": tensor ", copy.name, " differs from the ",
                          original == "token_embd.weight" ? "embedding" : info.file_name,
                          ", though config.json says tie_word_embeddings; "
                          "set it to false if the head is its own"));
    }
    copy.used = true;
  }

  /// Fixed scales of keys and values.
  void take_kv_scales(const Family& family) {
    for (const std::string& name : kv_scale_names(family, model_->arch_)) {
      const auto found = std::find_if(found_.begin(), found_.end(),
                                      [&name](const Found& one) { return one.name == name; });
      if (found == found_.end()) {
        throw_bad_input(cat(path_, ": tensor ", name,
                            " is missing; quantization_config has a kv_cache_scheme"));
      }
      found->used = true;
      model_->arch_.kv_scales.push_back(
          read_kv_scale({found->file->data() + found->offset, found->dtype, found->shape, {}},
                        cat(found->file->path(), ": byte ", found->offset, ": tensor ", name)));
    }
  }

  /// Tensors besides the architecture's that travel along; refuses those that nobody knows.
  std::vector<CarriedTensor> take_extras(const Family& family) {
    std::vector<CarriedTensor> carried;
    for (const Found& found : found_) {
      if (found.used) continue;
      Extra extra = family.hf_extra != nullptr ? family.hf_extra(found.name) : Extra::kUnknown;
      // A buffer that some versions of transformers saved; the architecture says it.
      if (found.name.ends_with(".rotary_emb.inv_freq")) extra = Extra::kIgnored;
      if (extra == Extra::kUnknown) refuse(found);
      if (extra == Extra::kCarried) {
        carried.push_back(
            {found.name,
             {found.file->data() + found.offset, found.dtype, found.shape, found.file}});
      }
    }
    return carried;
  }

  [[noreturn]] void refuse(const Found& found) const {
    throw_bad_input(cat(found.file->path(), ": byte ", found.offset, ": tensor ", found.name,
                        " is not one that ", model_->arch_.family, " has"));
  }

  const std::string path_, output_;
  std::shared_ptr<Model> model_;
  std::vector<Found> found_;
};

std::shared_ptr<const Model> Model::open(const std::string& path, const std::string& output) {
  return ModelReader(resolve_model_path(path), output).read();
}

}  // namespace slmc
