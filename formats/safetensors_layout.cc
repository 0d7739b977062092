// The layout of a Hugging Face folder to be written: shards, their headers, the index and the small
// files.
#include <algorithm>
#include <cstdio>
#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/assets.h"
#include "formats/output_layout.h"
#include "formats/safetensors.h"

namespace slmc {
namespace {

std::string shard_name(size_t shard, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
  return name;
}

/// config.json's name for the plain type of most bytes.
std::string dtype_key(const OutputLayout& layout) {
  std::map<DType, uint64_t> bytes;
  for (const OutputSlot& slot : layout.slots) {
    if (!slot.group) bytes[slot.tensor.dtype] += slot.bytes;
  }
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most->first == DType::kF32   ? "float32"
         : most->first == DType::kF16 ? "float16"
                                      : "bfloat16";
}

/// "quantization_config", where there are group-quantized weights.
void add_quantization(const OutputSpec& spec, const OutputLayout& layout, Json& config) {
  config.erase("quantization_config");
  std::vector<DType> types;
  std::vector<std::string> ignored;
  const auto ignore = [&ignored](const std::string& name, const std::vector<int64_t>& shape) {
    const std::string module = name.substr(0, name.rfind('.'));
    if (shape.size() == 2 && name.ends_with(".weight") && name.find("embed") == std::string::npos &&
        std::find(ignored.begin(), ignored.end(), module) == ignored.end())
      ignored.push_back(module);
  };
  for (const OutputSlot& slot : layout.slots) {
    if (slot.group) {
      types.push_back(slot.tensor.dtype);
    } else {
      ignore(slot.layout.name, slot.tensor.shape);
    }
  }
  if (types.empty()) return;
  // A tied head is a Linear too, under a name that has no tensor.
  if (spec.arch.tied && !spec.arch.encoder) ignored.push_back("lm_head");
  for (const CarriedTensor& tensor : spec.assets.carried) ignore(tensor.name, tensor.view.shape);
  config["quantization_config"] = group_config(types, ignored, !spec.arch.kv_scales.empty());
}

Json make_config(const OutputSpec& spec, const Family& family, const OutputLayout& layout) {
  Json config = family.to_config(spec.arch, spec.config);
  const bool newer = config.contains("dtype") && !config.contains("torch_dtype");
  config[newer ? "dtype" : "torch_dtype"] = dtype_key(layout);
  add_quantization(spec, layout, config);
  return config;
}

/// Numbers the shards, filling each in canonical order.
size_t assign_shards(std::vector<StoredTensor>& stored, uint64_t shard_bytes) {
  size_t shard = 0;
  uint64_t filled = 0;
  for (StoredTensor& tensor : stored) {
    if (filled > 0 && filled + tensor.bytes > shard_bytes) {
      ++shard;
      filled = 0;
    }
    tensor.file = shard;
    filled += tensor.bytes;
  }
  return shard + 1;
}

/// The metadata of one shard; it has the hashes of its own tensors.
std::vector<std::pair<std::string, std::string>> shard_metadata(
    const OutputSpec& spec, const OutputLayout& layout, size_t shard,
    const std::vector<std::string>& hashes) {
  std::vector<OutputSlot> held;
  std::vector<std::string> held_hashes;
  for (size_t i = 0; i < layout.slots.size(); ++i) {
    if (layout.stored[layout.slots[i].stored].file != shard) continue;
    held.push_back(layout.slots[i]);
    if (!hashes.empty()) held_hashes.push_back(hashes[i]);
  }
  std::vector<std::pair<std::string, std::string>> metadata = {{"format", "pt"}};
  metadata.insert(metadata.end(), spec.metadata.begin(), spec.metadata.end());
  metadata.emplace_back(kHashesKey, join_hashes(held, held_hashes));
  return metadata;
}

/// Lays the tensors of one shard out, widest elements first so that every one is aligned to its
/// element.
OutputFile make_shard(const OutputSpec& spec, OutputLayout& layout, size_t shard, size_t count,
                      const std::vector<std::string>& hashes) {
  std::vector<StoredTensor*> order;
  for (StoredTensor& tensor : layout.stored) {
    if (tensor.file == shard) order.push_back(&tensor);
  }
  std::stable_sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return dtype_block_bytes(a->dtype) > dtype_block_bytes(b->dtype);
  });
  std::vector<SafetensorsEntry> entries;
  uint64_t at = 0;
  for (StoredTensor* tensor : order) {
    entries.push_back({tensor->name, tensor->dtype, tensor->shape, at, tensor->bytes});
    tensor->offset = at;
    at += tensor->bytes;
  }
  OutputFile file{shard_name(shard, count),
                  safetensors_header(entries, shard_metadata(spec, layout, shard, hashes)), 0};
  file.size = file.header.size() + at;
  for (StoredTensor* tensor : order) tensor->offset += file.header.size();
  return file;
}

}  // namespace

void safetensors_layout(const OutputSpec& spec, const Family& family,
                        const std::vector<std::string>& hashes, OutputLayout& layout,
                        uint64_t shard_bytes) {
  layout.folder = true;
  const auto add_text = [&layout](const std::string& name, const std::string& text) {
    if (!text.empty()) layout.texts.emplace_back(name, text);
  };
  add_text("config.json", make_config(spec, family, layout).dump(2) + "\n");
  add_text("generation_config.json", spec.assets.generation_config_json);
  add_text("tokenizer.json", spec.assets.tokenizer_json);
  add_text("tokenizer_config.json", spec.assets.tokenizer_config_json);
  add_text("special_tokens_map.json", spec.assets.special_tokens_map_json);
  // tokenizer_config.json may hold the same template already.
  if (configured_template(spec.assets.tokenizer_config_json, "tokenizer_config.json") !=
      spec.assets.chat_template)
    add_text("chat_template.jinja", spec.assets.chat_template);
  for (const auto& [name, text] : spec.assets.files) add_text(name, text);
  const size_t shards = assign_shards(layout.stored, shard_bytes);
  for (size_t shard = 0; shard < shards; ++shard)
    layout.files.push_back(make_shard(spec, layout, shard, shards, hashes));
  if (shards == 1) return;
  Json map = Json::object();
  uint64_t bytes = 0;
  for (const StoredTensor& tensor : layout.stored) {
    map[tensor.name] = layout.files[tensor.file].name;
    bytes += tensor.bytes;
  }
  add_text("model.safetensors.index.json",
           Json({{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}).dump(2) + "\n");
}

}  // namespace slmc
