// BERT and the sentence encoders built on it (MiniLM, BGE, E5 in their BERT versions).
#include "formats/bert.h"

namespace slmc {
namespace {

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch;
  arch.family = "bert";
  arch.layers = config_size(config, "num_hidden_layers", 12, where);
  arch.hidden = config_size(config, "hidden_size", 768, where);
  arch.ffn = config_size(config, "intermediate_size", 3072, where);
  arch.heads = config_size(config, "num_attention_heads", 12, where);
  arch.vocab = config_size(config, "vocab_size", 30522, where);
  arch.context = config_size(config, "max_position_embeddings", 512, where);
  arch.token_types = config_size(config, "type_vocab_size", 2, where);
  arch.norm_eps = config_number(config, "layer_norm_eps", 1e-12, where);
  arch.activation = activation_from_config(config, "hidden_act", "gelu", where);
  set_encoder_kind(config, "BertModel", arch, where);
  arch.head_activation = arch.head == Head::kMasked ? arch.activation : Activation::kTanh;
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  Json config = original.is_object() ? original : Json::object();
  config["model_type"] = "bert";
  config["num_hidden_layers"] = arch.layers;
  config["hidden_size"] = arch.hidden;
  config["intermediate_size"] = arch.ffn;
  config["num_attention_heads"] = arch.heads;
  config["vocab_size"] = arch.vocab;
  config["max_position_embeddings"] = arch.context;
  config["type_vocab_size"] = arch.token_types;
  config["layer_norm_eps"] = arch.norm_eps;
  config["hidden_act"] = activation_for_config(arch.activation, config, "hidden_act");
  write_encoder_kind(arch, "Bert", config);
  return config;
}

const EncoderNames& names() {
  static const EncoderNames all = {.prefix = "bert.",
                                   .embeddings = "embeddings.",
                                   .layers = "encoder.layer.",
                                   .types = "token_type_embeddings",
                                   .parts = {{"attn_q", "attention.self.query"},
                                             {"attn_k", "attention.self.key"},
                                             {"attn_v", "attention.self.value"},
                                             {"attn_output", "attention.output.dense"},
                                             {"attn_output_norm", "attention.output.LayerNorm"},
                                             {"ffn_up", "intermediate.dense"},
                                             {"ffn_down", "output.dense"},
                                             {"layer_output_norm", "output.LayerNorm"}},
                                   .classifier_dense = "bert.pooler.dense",
                                   .masked_dense = "cls.predictions.transform.dense",
                                   .masked_norm = "cls.predictions.transform.LayerNorm",
                                   .masked_weight = "cls.predictions.decoder.weight",
                                   .masked_bias = "cls.predictions.bias"};
  return all;
}

/// Heads of the pretraining that a checkpoint holds beside the one it is used with.
Extra extra(const std::string& name) {
  if (name.ends_with("embeddings.position_ids")) return Extra::kIgnored;
  const bool head = name.find("pooler.") != std::string::npos || name.starts_with("cls.");
  return head ? Extra::kCarried : Extra::kUnknown;
}

}  // namespace

const Family& family_bert();
const Family& family_bert() {
  static const Family family = {
      .name = "bert",
      .hf_architectures = {"BertModel", "BertForSequenceClassification", "BertForMaskedLM"},
      .hf_model_types = {"bert"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = encoder_from_gguf,
      .to_gguf = encoder_to_gguf,
      .tensors = [](const Architecture& arch) { return encoder_tensors(arch, names()); },
      .hf_spelling = [](const std::string& name) { return encoder_spelling(name, "bert."); },
      .hf_extra = extra,
      .hf_copies = {{"cls.predictions.decoder.weight", "token_embd.weight"},
                    {"cls.predictions.decoder.bias", "output.bias"}},
  };
  return family;
}

}  // namespace slmc
