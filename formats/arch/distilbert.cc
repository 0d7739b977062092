// DistilBERT: BERT without token types, with names of its own and a classifier that applies ReLU.
#include "formats/bert.h"

namespace slmc {
namespace {

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch;
  arch.family = "distilbert";
  arch.layers = config_size(config, "n_layers", 6, where);
  arch.hidden = config_size(config, "dim", 768, where);
  arch.ffn = config_size(config, "hidden_dim", 3072, where);
  arch.heads = config_size(config, "n_heads", 12, where);
  arch.vocab = config_size(config, "vocab_size", 30522, where);
  arch.context = config_size(config, "max_position_embeddings", 512, where);
  arch.norm_eps = 1e-12;
  arch.activation = activation_from_config(config, "activation", "gelu", where);
  set_encoder_kind(config, "DistilBertModel", arch, where);
  arch.head_activation = arch.head == Head::kMasked       ? arch.activation
                         : arch.head == Head::kClassifier ? Activation::kRelu
                                                          : Activation::kTanh;
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  Json config = original.is_object() ? original : Json::object();
  config["model_type"] = "distilbert";
  config["n_layers"] = arch.layers;
  config["dim"] = arch.hidden;
  config["hidden_dim"] = arch.ffn;
  config["n_heads"] = arch.heads;
  config["vocab_size"] = arch.vocab;
  config["max_position_embeddings"] = arch.context;
  config["activation"] = activation_for_config(arch.activation, config, "activation");
  write_encoder_kind(arch, "DistilBert", config);
  return config;
}

const EncoderNames& names() {
  static const EncoderNames all = {.prefix = "distilbert.",
                                   .embeddings = "embeddings.",
                                   .layers = "transformer.layer.",
                                   .types = "",
                                   .parts = {{"attn_q", "attention.q_lin"},
                                             {"attn_k", "attention.k_lin"},
                                             {"attn_v", "attention.v_lin"},
                                             {"attn_output", "attention.out_lin"},
                                             {"attn_output_norm", "sa_layer_norm"},
                                             {"ffn_up", "ffn.lin1"},
                                             {"ffn_down", "ffn.lin2"},
                                             {"layer_output_norm", "output_layer_norm"}},
                                   .classifier_dense = "pre_classifier",
                                   .masked_dense = "vocab_transform",
                                   .masked_norm = "vocab_layer_norm",
                                   .masked_weight = "vocab_projector.weight",
                                   .masked_bias = "vocab_projector.bias"};
  return all;
}

/// The masked head that a checkpoint of another class holds besides.
Extra extra(const std::string& name) {
  if (name.ends_with("embeddings.position_ids")) return Extra::kIgnored;
  return name.starts_with("vocab_") ? Extra::kCarried : Extra::kUnknown;
}

}  // namespace

const Family& family_distilbert();
const Family& family_distilbert() {
  static const Family family = {
      .name = "distilbert",
      .gguf_architecture = "bert",
      .hf_architectures = {"DistilBertModel", "DistilBertForSequenceClassification",
                           "DistilBertForMaskedLM"},
      .hf_model_types = {"distilbert"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf = encoder_from_gguf,
      .to_gguf = encoder_to_gguf,
      .tensors = [](const Architecture& arch) { return encoder_tensors(arch, names()); },
      .hf_spelling = [](const std::string& name) { return encoder_spelling(name, "distilbert."); },
      .hf_extra = extra,
      .hf_copies = {{"vocab_projector.weight", "token_embd.weight"}},
  };
  return family;
}

}  // namespace slmc
