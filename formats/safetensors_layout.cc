// The layout of a Hugging Face folder to be written: shards, their headers, the index and the small
// files.
#include <algorithm>
#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"
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

/// config.json's name for the type of most bytes.
std::string dtype_key(const std::vector<OutputSlot>& slots) {
  std::map<DType, uint64_t> bytes;
  for (const OutputSlot& slot : slots) bytes[slot.tensor.dtype] += slot.bytes;
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most->first == DType::kF32   ? "float32"
         : most->first == DType::kF16 ? "float16"
                                      : "bfloat16";
}

Json make_config(const OutputSpec& spec, const Family& family,
                 const std::vector<OutputSlot>& slots) {
  Json config = family.to_config(spec.arch, spec.config);
  const bool newer = config.contains("dtype") && !config.contains("torch_dtype");
  config[newer ? "dtype" : "torch_dtype"] = dtype_key(slots);
  return config;
}

/// Numbers the shards, filling each in canonical order.
size_t assign_shards(std::vector<OutputSlot>& slots, uint64_t shard_bytes) {
  size_t shard = 0;
  uint64_t filled = 0;
  for (OutputSlot& slot : slots) {
    if (filled > 0 && filled + slot.bytes > shard_bytes) {
      ++shard;
      filled = 0;
    }
    slot.file = shard;
    filled += slot.bytes;
  }
  return shard + 1;
}

/// Lays the slots of one shard out, widest elements first so that every tensor is aligned to its
/// element.
OutputFile make_shard(const OutputSpec& spec, const std::vector<std::string>& hf_names,
                      std::vector<OutputSlot>& slots, size_t shard, size_t count,
                      const std::vector<std::string>& hashes) {
  std::vector<size_t> order;
  std::vector<OutputSlot> held;
  std::vector<std::string> held_hashes;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].file != shard) continue;
    order.push_back(i);
    held.push_back(slots[i]);
    if (!hashes.empty()) held_hashes.push_back(hashes[i]);
  }
  std::stable_sort(order.begin(), order.end(), [&slots](size_t a, size_t b) {
    return dtype_block_bytes(slots[a].tensor.dtype) > dtype_block_bytes(slots[b].tensor.dtype);
  });
  std::vector<SafetensorsEntry> entries;
  uint64_t at = 0;
  for (const size_t i : order) {
    entries.push_back(
        {hf_names[i], slots[i].tensor.dtype, slots[i].tensor.shape, at, slots[i].bytes});
    slots[i].offset = at;
    at += slots[i].bytes;
  }
  std::vector<std::pair<std::string, std::string>> metadata = {{"format", "pt"}};
  metadata.insert(metadata.end(), spec.metadata.begin(), spec.metadata.end());
  metadata.emplace_back(kHashesKey, join_hashes(held, held_hashes));
  OutputFile file{shard_name(shard, count), safetensors_header(entries, metadata), 0};
  file.size = file.header.size() + at;
  for (const size_t i : order) slots[i].offset += file.header.size();
  return file;
}

}  // namespace

OutputLayout safetensors_layout(const OutputSpec& spec, const Family& family,
                                std::vector<OutputSlot> slots,
                                const std::vector<std::string>& hashes, uint64_t shard_bytes) {
  OutputLayout layout;
  layout.folder = true;
  const auto add_text = [&layout](const char* name, const std::string& text) {
    if (!text.empty()) layout.texts.emplace_back(name, text);
  };
  add_text("config.json", make_config(spec, family, slots).dump(2) + "\n");
  add_text("generation_config.json", spec.assets.generation_config_json);
  add_text("tokenizer.json", spec.assets.tokenizer_json);
  add_text("tokenizer_config.json", spec.assets.tokenizer_config_json);
  add_text("special_tokens_map.json", spec.assets.special_tokens_map_json);
  // tokenizer_config.json may hold the template already; transformers prefers the file, and they
  // are the same.
  if (spec.assets.tokenizer_config_json.find("\"chat_template\"") == std::string::npos)
    add_text("chat_template.jinja", spec.assets.chat_template);
  std::vector<std::string> hf_names;
  for (const TensorSpec& tensor : family.tensors(spec.arch)) hf_names.push_back(tensor.hf_name);
  const size_t shards = assign_shards(slots, shard_bytes);
  Json map = Json::object();
  uint64_t bytes = 0;
  for (size_t shard = 0; shard < shards; ++shard)
    layout.files.push_back(make_shard(spec, hf_names, slots, shard, shards, hashes));
  for (size_t i = 0; i < slots.size(); ++i) {
    map[hf_names[i]] = layout.files[slots[i].file].name;
    bytes += slots[i].bytes;
  }
  if (shards > 1)
    add_text("model.safetensors.index.json",
             Json({{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}).dump(2) + "\n");
  layout.slots = std::move(slots);
  return layout;
}

}  // namespace slmc
