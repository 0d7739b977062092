#include "formats/bottleneck.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/decoder_family.h"
#include "formats/family.h"
#include "formats/pytorch.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBranches[] = {"attn", "ffn"};

/// "model.layers.3." of a Hugging Face folder.
std::string block_prefix(const std::vector<TensorSpec>& specs, int64_t layer) {
  const std::string block = cat("blk.", layer, "."), number = cat(".", layer, ".");
  for (const TensorSpec& spec : specs) {
    if (!spec.name.starts_with(block)) continue;
    const size_t at = spec.hf.name.find(number);
    if (at != std::string::npos) return spec.hf.name.substr(0, at + number.size());
  }
  SLMC_CHECK(false, cat("block ", layer, " has no name"));
  return "";
}

/// The four tensors of one adapter of `width`.
std::vector<SideTensor> tensors_of(const std::string& prefix, int64_t layer, size_t branch,
                                   const std::string& name, int64_t width, int64_t hidden) {
  const std::string ours = cat("blk.", layer, ".", kBranches[branch], "_adapter_"),
                    theirs = cat(prefix, branch == 0 ? "attention" : "output",
                                 "_adapters.adapters.", name, ".adapter_");
  return {{ours + "down.weight", theirs + "down.0.weight", {width, hidden}},
          {ours + "down.bias", theirs + "down.0.bias", {width}},
          {ours + "up.weight", theirs + "up.weight", {hidden, width}},
          {ours + "up.bias", theirs + "up.bias", {hidden}}};
}

/// What the package says of the arrangement that slmc computes; the rest of its keys have one
/// value.
Json arrangement(const BottleneckSettings& settings) {
  Json leave_out = Json::array();
  for (int64_t layer = 0; layer < settings.first_layer; ++layer) leave_out.push_back(layer);
  return {{"mh_adapter", settings.houlsby},
          {"output_adapter", true},
          {"reduction_factor", settings.reduction},
          {"non_linearity", activation_for_config(settings.activation, {}, "non_linearity")},
          {"original_ln_before", !settings.houlsby},
          {"original_ln_after", true},
          {"residual_before_ln", true},
          {"adapter_residual_before_ln", false},
          {"ln_before", false},
          {"ln_after", false},
          {"init_weights", "mam_adapter"},
          {"is_parallel", false},
          {"scaling", 1.0},
          {"use_gating", false},
          {"inv_adapter", nullptr},
          {"cross_adapter", false},
          {"leave_out", leave_out},
          {"dropout", settings.dropout},
          {"phm_layer", false},
          {"stochastic_depth", 0.0}};
}

void check_arrangement(const Json& config, const std::string& file) {
  for (const char* key : {"ln_before", "ln_after", "is_parallel", "use_gating", "cross_adapter",
                          "phm_layer", "adapter_residual_before_ln"})
    config_require(config, key, false, file);
  config_require(config, "original_ln_after", true, file);
  config_require(config, "residual_before_ln", true, file);
  config_require(config, "scaling", 1.0, file);
  config_require(config, "inv_adapter", nullptr, file);
  config_require(config, "architecture", nullptr, file);
}

SafetensorsFile open_weights(const std::string& path) {
  const std::string safe = path + "/adapter.safetensors", pickled = path + "/pytorch_adapter.bin";
  return !fs::exists(safe) && fs::exists(pickled) ? open_pytorch_file(pickled)
                                                  : SafetensorsFile::open(safe);
}

void require_decoder(const Architecture& arch) {
  if (arch.head != Head::kLanguage)
    throw_unsupported(
        cat(arch.family, ": bottleneck adapters are for decoders; this is an encoder"));
}

}  // namespace

SideAdapter make_bottleneck(const Architecture& arch, const BottleneckSettings& settings) {
  require_decoder(arch);
  SideAdapter adapter;
  adapter.kind = AdapterKind::kBottleneck;
  adapter.shape.bottleneck = {
      .width = std::max<int64_t>(1, static_cast<int64_t>(std::floor(
                                        static_cast<double>(arch.hidden) / settings.reduction))),
      .activation = settings.activation,
      .reads_stream = !settings.houlsby,
      .dropout = settings.dropout};
  const std::vector<TensorSpec> specs = family_by_name(arch.family).tensors(arch);
  for (int64_t layer = settings.first_layer; layer < arch.layers; ++layer)
    for (size_t branch = settings.houlsby ? 0 : 1; branch < 2; ++branch)
      for (SideTensor& tensor : tensors_of(block_prefix(specs, layer), layer, branch, "slmc",
                                           adapter.shape.bottleneck.width, arch.hidden))
        adapter.tensors.push_back(std::move(tensor));
  adapter.config = {{"config", arrangement(settings)},
                    {"hidden_size", arch.hidden},
                    {"model_class", ""},
                    {"model_name", ""},
                    {"model_type", arch.family},
                    {"name", "slmc"},
                    {"version", "adapters.1.0.0"}};
  return adapter;
}

SideAdapter read_bottleneck(const std::string& path, const Architecture& arch) {
  require_decoder(arch);
  const std::string where = path + "/adapter_config.json";
  SideAdapter adapter;
  adapter.kind = AdapterKind::kBottleneck;
  adapter.config = read_json(where);
  const Json& config = adapter.config["config"];
  check_arrangement(config, where);
  if (!adapter.config.contains("name") || !adapter.config["name"].is_string())
    throw_bad_input(cat(where, ": expected the adapter's \"name\""));
  const std::string name = adapter.config["name"];
  adapter.shape.bottleneck.activation =
      activation_from_config(config, "non_linearity", "relu", where);
  adapter.shape.bottleneck.reads_stream =
      config_boolean(config, "original_ln_before", false, where);
  const Json dropout = config_has(config, "dropout") ? config["dropout"] : Json(0.0);
  if (!dropout.is_number() || dropout.get<double>() < 0 || dropout.get<double>() >= 1)
    throw_bad_input(
        cat(where, ": dropout: expected a number from 0 and below 1, found ", dropout.dump()));
  adapter.shape.bottleneck.dropout = dropout.get<double>();

  const SafetensorsFile file = open_weights(path);
  std::map<std::string, const SafetensorsEntry*> entries;
  for (const SafetensorsEntry& entry : file.tensors) entries[entry.name] = &entry;
  auto values = std::make_shared<MemoryWeights>(arch);
  const std::vector<TensorSpec> specs = family_by_name(arch.family).tensors(arch);
  int64_t& width = adapter.shape.bottleneck.width;
  for (int64_t layer = 0; layer < arch.layers; ++layer)
    for (size_t branch = 0; branch < 2; ++branch) {
      const std::string prefix = block_prefix(specs, layer);
      const auto named = tensors_of(prefix, layer, branch, name, width, arch.hidden);
      const auto down = entries.find(named.front().file_name);
      if (down == entries.end()) continue;
      if (width == 0 && !down->second->shape.empty()) width = down->second->shape.front();
      for (SideTensor& tensor : tensors_of(prefix, layer, branch, name, width, arch.hidden)) {
        const auto found = entries.find(tensor.file_name);
        if (found == entries.end())
          throw_bad_input(
              cat(path, ": tensor ", tensor.file_name, " is missing beside ", down->second->name));
        const SafetensorsEntry& entry = *found->second;
        if (entry.shape != tensor.shape)
          throw_bad_input(cat(path, ": ", entry.name, ": expected ", shape_text(tensor.shape),
                              ", found ", shape_text(entry.shape),
                              "; is the adapter of another model?"));
        values->add(tensor.name,
                    {file.file->data() + entry.offset, entry.dtype, entry.shape, file.file});
        adapter.tensors.push_back(std::move(tensor));
      }
    }
  if (adapter.tensors.empty() || adapter.tensors.size() != file.tensors.size())
    throw_bad_input(cat(path, ": ", file.tensors.size() - adapter.tensors.size(), " of ",
                        file.tensors.size(), " tensors belong to no block of this ", arch.family,
                        " model; is the adapter of another model?"));
  adapter.values = values;
  return adapter;
}

}  // namespace slmc
