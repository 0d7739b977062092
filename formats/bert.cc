#include "formats/bert.h"

#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

// llama.cpp's numbers of pooling.
constexpr uint32_t kPoolMean = 1, kPoolFirst = 2, kPoolRank = 4;

std::vector<int64_t> encoder_part_shape(const Architecture& arch, const std::string& part) {
  if (part == "ffn_up") return {arch.ffn, arch.hidden};
  if (part == "ffn_down") return {arch.hidden, arch.ffn};
  if (part.ends_with("norm")) return {arch.hidden};
  return {arch.hidden, arch.hidden};
}

int64_t count_classes(const Json& config, const std::string& where) {
  if (config_has(config, "id2label")) {
    if (!config["id2label"].is_object() || config["id2label"].empty())
      throw_bad_input(cat(where, ": id2label: expected an object of names"));
    return static_cast<int64_t>(config["id2label"].size());
  }
  return config_size(config, "num_labels", 2, where);
}

}  // namespace

std::vector<TensorSpec> encoder_tensors(const Architecture& arch, const EncoderNames& names) {
  std::vector<TensorSpec> tensors;
  const auto add = [&](const std::string& name, const std::string& hf, std::vector<int64_t> shape) {
    tensors.push_back({name, std::move(shape), {.name = hf}, {.name = name}});
  };
  const auto add_linear = [&](const std::string& name, const std::string& hf,
                              const std::vector<int64_t>& shape) {
    add(name + ".weight", hf + ".weight", shape);
    add(name + ".bias", hf + ".bias", {shape[0]});
  };
  // The bare model's folder has no prefix.
  const std::string prefix = arch.head == Head::kStates ? "" : names.prefix;
  const std::string embeddings = prefix + names.embeddings;
  add("token_embd.weight", embeddings + "word_embeddings.weight", {arch.vocab, arch.hidden});
  if (arch.token_types > 0)
    add("token_types.weight", embeddings + names.types + ".weight",
        {arch.token_types, arch.hidden});
  add("position_embd.weight", embeddings + "position_embeddings.weight",
      {arch.context, arch.hidden});
  add_linear("token_embd_norm", embeddings + "LayerNorm", {arch.hidden});
  for (int64_t layer = 0; layer < arch.layers; ++layer) {
    for (const BlockPart& part : names.parts) {
      add_linear(cat("blk.", layer, ".", part.name), cat(prefix, names.layers, layer, ".", part.hf),
                 encoder_part_shape(arch, part.name));
    }
  }
  if (arch.head == Head::kClassifier) {
    add_linear("cls", names.classifier_dense, {arch.hidden, arch.hidden});
    add_linear("cls.output", "classifier", {arch.classes, arch.hidden});
  }
  if (arch.head == Head::kMasked) {
    add_linear("mlm", names.masked_dense, {arch.hidden, arch.hidden});
    add_linear("mlm_norm", names.masked_norm, {arch.hidden});
    if (!arch.tied) add("output.weight", names.masked_weight, {arch.vocab, arch.hidden});
    add("output.bias", names.masked_bias, {arch.vocab});
  }
  return tensors;
}

void set_encoder_kind(const Json& config, const std::string& default_head, Architecture& arch,
                      const std::string& where) {
  if (config_has(config, "quantization_config"))
    throw_unsupported(cat(where, ": quantization_config: give the original checkpoint"));
  for (const char* key : {"is_decoder", "add_cross_attention"})
    config_require(config, key, false, where);
  config_require(config, "position_embedding_type", "absolute", where);
  if (config_has(config, "pruned_heads") && !config["pruned_heads"].empty())
    throw_unsupported(cat(where, ": pruned_heads"));
  if (arch.hidden % arch.heads != 0) {
    throw_bad_input(
        cat(where, ": width ", arch.hidden, " is not a multiple of its ", arch.heads, " heads"));
  }
  arch.encoder = true;
  arch.norm = NormKind::kLayer;
  arch.gated = false;
  arch.qkv_bias = arch.output_bias = arch.mlp_bias = true;
  arch.learned_positions = true;
  arch.kv_heads = arch.heads;
  arch.head_dim = arch.hidden / arch.heads;
  arch.rope = {};
  std::string head = default_head;
  if (config_has(config, "architectures") && config["architectures"].is_array() &&
      !config["architectures"].empty() && config["architectures"][0].is_string())
    head = config["architectures"][0].get<std::string>();
  arch.tied = true;
  if (head.ends_with("ForSequenceClassification")) {
    arch.head = Head::kClassifier;
    arch.classes = count_classes(config, where);
  } else if (head.ends_with("ForMaskedLM")) {
    arch.head = Head::kMasked;
    arch.tied = config_boolean(config, "tie_word_embeddings", true, where);
  } else {
    arch.head = Head::kStates;
    const Json pooling = config.value("slmc_pooling", Json("mean"));
    if (pooling != "mean" && pooling != "cls")
      throw_bad_input(cat(where, ": slmc_pooling: expected mean or cls, found ", shown(pooling)));
    arch.pooling = pooling == "cls" ? Pooling::kFirst : Pooling::kMean;
  }
  arch.bos = config_token(config, "bos_token_id", -1, where);
  arch.eos = config_token(config, "eos_token_id", -1, where);
  arch.pad = config_token(config, "pad_token_id", 0, where);
}

void write_encoder_kind(const Architecture& arch, const std::string& prefix, Json& config) {
  if (!config_has(config, "architectures")) {
    config["architectures"] = {prefix + (arch.head == Head::kClassifier
                                             ? "ForSequenceClassification"
                                         : arch.head == Head::kMasked ? "ForMaskedLM"
                                                                      : "Model")};
  }
  if (arch.head == Head::kClassifier && !config_has(config, "id2label") && arch.classes != 2)
    config["num_labels"] = arch.classes;
  if (arch.head == Head::kMasked) config["tie_word_embeddings"] = arch.tied;
  if (arch.head == Head::kStates)
    config["slmc_pooling"] = arch.pooling == Pooling::kFirst ? "cls" : "mean";
  for (const auto& [key, id] : {std::pair{"bos_token_id", arch.bos}, {"eos_token_id", arch.eos}}) {
    if (id >= 0 || config.contains(key)) write_token(config, key, id);
  }
  write_token(config, "pad_token_id", arch.pad);
}

Architecture encoder_from_gguf(const GgufFile& file, const std::string& where) {
  Architecture arch = decoder_from_gguf(file, "bert", where);
  const int64_t pooling = file.keys.integer_or("bert.pooling_type", kPoolMean, where);
  const GgufTensor* types = file.find("token_types.weight");
  const GgufTensor* classes = file.find("cls.output.weight");
  const Json head = {
      {"architectures", {classes != nullptr ? "BertForSequenceClassification" : "BertModel"}},
      {"num_labels", classes != nullptr ? classes->shape[0] : 2},
      {"slmc_pooling", pooling == kPoolFirst ? "cls" : "mean"},
      {"bos_token_id", arch.bos},
      {"eos_token_id", arch.eos},
      {"pad_token_id", arch.pad}};
  set_encoder_kind(head, "", arch, where);
  arch.activation = Activation::kGelu;
  arch.token_types = types != nullptr ? types->shape[0] : 0;
  return arch;
}

void encoder_to_gguf(const Architecture& arch, GgufKeys& keys) {
  if (arch.head == Head::kMasked)
    throw_unsupported(
        "llama.cpp has no masked-language head, so a GGUF cannot hold this model; "
        "write a safetensors folder");
  if (arch.head == Head::kClassifier && arch.head_activation != Activation::kTanh) {
    throw_unsupported(cat("llama.cpp's classifier head applies tanh and this model's ",
                          activation_name(arch.head_activation),
                          ", so a GGUF cannot hold it; write a safetensors folder"));
  }
  decoder_to_gguf(arch, keys);
  keys.set("bert.attention.causal", false);
  keys.set("bert.pooling_type", arch.head == Head::kClassifier    ? kPoolRank
                                : arch.pooling == Pooling::kFirst ? kPoolFirst
                                                                  : kPoolMean);
  // A model without token types has no tensor of them; llama.cpp wants the count nevertheless.
  keys.set("tokenizer.ggml.token_type_count",
           static_cast<uint32_t>(std::max<int64_t>(arch.token_types, 1)));
  if (arch.head != Head::kClassifier) return;
  std::vector<std::string> labels;
  for (int64_t i = 0; i < arch.classes; ++i) labels.push_back(cat("LABEL_", i));
  keys.set("bert.classifier.output_labels", GgufArray(std::move(labels)));
}

std::string encoder_spelling(const std::string& name, const std::string& model) {
  std::string spelled = name.starts_with(model) ? name.substr(model.size()) : name;
  for (const auto& [old, now] : {std::pair{".gamma", ".weight"}, {".beta", ".bias"}}) {
    const std::string_view end(old);
    if (spelled.ends_with(end)) spelled = spelled.substr(0, spelled.size() - end.size()) + now;
  }
  return spelled;
}

void read_pooling(const std::string& folder, Json& config) {
  const std::string path = folder + "/1_Pooling/config.json";
  if (!std::filesystem::exists(path)) return;
  const Json pooling = read_json(path);
  for (const auto& [key, value] : pooling.items()) {
    if (!key.starts_with("pooling_mode_") || value != true) continue;
    if (key == "pooling_mode_mean_tokens") {
      config["slmc_pooling"] = "mean";
    } else if (key == "pooling_mode_cls_token") {
      config["slmc_pooling"] = "cls";
    } else {
      throw_unsupported(
          cat(path, ": ", key, "; pooling by the mean or the first token is implemented"));
    }
  }
}

}  // namespace slmc
