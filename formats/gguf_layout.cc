// The layout of a GGUF to be written: keys, directory, offsets.
#include <cstring>
#include <filesystem>
#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/gguf.h"
#include "formats/output_layout.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

constexpr uint64_t kAlignment = 32;

uint64_t padded(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// llama.cpp's number for a file whose matrices are mostly of one type ("ftype"); only shown to
/// people.
uint32_t file_type(const std::vector<OutputSlot>& slots) {
  static const std::map<DType, uint32_t> kNumbers = {
      {DType::kF32, 0},     {DType::kF16, 1},     {DType::kQ4_0, 2},  {DType::kQ4_1, 3},
      {DType::kQ8_0, 7},    {DType::kQ5_0, 8},    {DType::kQ5_1, 9},  {DType::kQ2_K, 10},
      {DType::kQ3_K, 12},   {DType::kQ4_K, 15},   {DType::kQ5_K, 17}, {DType::kQ6_K, 18},
      {DType::kIQ4_NL, 25}, {DType::kIQ4_XS, 30}, {DType::kBF16, 32}};
  std::map<DType, uint64_t> bytes;
  for (const OutputSlot& slot : slots) {
    if (slot.tensor.shape.size() > 1 && slot.tensor.name.starts_with("blk."))
      bytes[slot.tensor.dtype] += slot.bytes;
  }
  DType most = DType::kF32;
  for (const auto& [type, count] : bytes) {
    if (count > bytes[most]) most = type;
  }
  return kNumbers.count(most) > 0 ? kNumbers.at(most) : 0;
}

/// config.json as it would be written, so that converting back restores what GGUF has no key for.
/// "" for what it cannot say.
std::string config_text(const OutputSpec& spec, const Family& family) {
  try {
    const Json config = family.to_config(spec.arch, spec.config);
    return (family.gguf_config != nullptr ? family.gguf_config(config) : config).dump();
  } catch (const Error& error) {
    if (error.code() != ExitCode::kUnsupported) throw;
    return "";
  }
}

/// What llama.cpp would run must be the architecture; a difference means that no key says it.
void check_said(const OutputSpec& spec, const Family& family, const GgufKeys& keys,
                const OutputLayout& layout) {
  GgufFile file;
  file.keys = keys;
  for (const StoredTensor& tensor : layout.stored)
    file.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0, tensor.bytes});
  Architecture read =
      family_for_gguf(gguf_architecture(family), spec.path).from_gguf(file, spec.path);
  if (!rope_tensors(spec.arch.rope).empty()) read.rope = spec.arch.rope;  // Tensors say it.
  if (family.gguf_notes != nullptr) {
    read.window = spec.arch.window;  // A note says that it holds within the window.
    read.windowed = spec.arch.windowed;
  }
  const std::string difference = architecture_difference(spec.arch, read);
  if (!difference.empty()) {
    throw_unsupported(cat(spec.path, ": a GGUF of ", gguf_architecture(family),
                          " has no key for this model (", difference,
                          " as llama.cpp would read it); write a safetensors folder"));
  }
}

GgufKeys make_keys(const OutputSpec& spec, const Family& family, const OutputLayout& layout,
                   const std::vector<std::string>& hashes) {
  const std::vector<OutputSlot>& slots = layout.slots;
  GgufKeys keys;
  keys.set("general.architecture", gguf_architecture(family));
  keys.set("general.type", std::string("model"));
  keys.set("general.name",
           spec.name.empty() ? std::filesystem::path(spec.path).stem().string() : spec.name);
  keys.set("general.file_type", spec.file_type.value_or(file_type(slots)));
  keys.set("general.quantization_version", uint32_t{2});
  family.to_gguf(spec.arch, keys);
  check_said(spec, family, keys, layout);
  if (!spec.assets.tokenizer_json.empty()) {
    tokenizer_to_gguf(spec.assets, spec.arch, spec.path, keys);
  } else {
    const auto token = [&keys](const char* key, int64_t id) {
      if (id >= 0) keys.set(key, static_cast<uint32_t>(id));
    };
    token("tokenizer.ggml.bos_token_id", spec.arch.bos);
    token("tokenizer.ggml.eos_token_id", spec.arch.eos);
    token("tokenizer.ggml.padding_token_id", spec.arch.pad);
  }
  const auto text = [&keys](const std::string& key, const std::string& value) {
    if (!value.empty()) keys.set(key, value);
  };
  text("slmc.config", config_text(spec, family));
  text("slmc.generation_config", spec.assets.generation_config_json);
  text("slmc.special_tokens_map", spec.assets.special_tokens_map_json);
  for (const auto& [key, value] : spec.metadata) {
    SLMC_CHECK(key.starts_with("slmc.") && key != kHashesKey,
               cat("metadata key ", key, " is not of slmc's own"));
    text(key, value);
  }
  keys.set(kHashesKey, join_hashes(slots, hashes));
  return keys;
}

}  // namespace

void gguf_layout(const OutputSpec& spec, const Family& family,
                 const std::vector<std::string>& hashes, OutputLayout& layout) {
  std::vector<GgufTensor> directory;
  uint64_t at = 0;
  std::string factors;
  for (const auto& [name, values] : rope_tensors(spec.arch.rope)) {
    const uint64_t bytes = values.size() * sizeof(float);
    directory.push_back({name, DType::kF32, {static_cast<int64_t>(values.size())}, at, bytes});
    factors.resize(padded(at + bytes), '\0');
    std::memcpy(factors.data() + at, values.data(), bytes);
    at = factors.size();
  }
  if (!factors.empty()) layout.extra.emplace_back(0, factors);
  for (StoredTensor& tensor : layout.stored) {
    tensor.offset = at;
    directory.push_back({tensor.name, tensor.dtype, tensor.shape, at, tensor.bytes});
    at += padded(tensor.bytes);
  }
  OutputFile file;
  file.header = gguf_header(make_keys(spec, family, layout, hashes), directory, kAlignment);
  file.size = file.header.size() + at;
  for (StoredTensor& tensor : layout.stored) tensor.offset += file.header.size();
  layout.files.push_back(std::move(file));
}

}  // namespace slmc
