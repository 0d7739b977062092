// Gemma 3 with a vision tower (4B and larger): its language model is Gemma 3's text model under
// another prefix. The tower travels through a safetensors folder unchanged; a GGUF holds the text
// model.
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/gemma.h"

namespace slmc {
namespace {

/// The text model's part, with the token ids that the whole names.
Json text_config(const Json& config, const std::string& where) {
  Json text = config_has(config, "text_config") ? config["text_config"] : Json::object();
  if (!text.is_object()) throw_bad_input(cat(where, ": text_config: expected an object"));
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"}) {
    if (config_has(config, key)) text[key] = config[key];
  }
  return text;
}

Architecture from_config(const Json& config, const std::string& where) {
  Architecture arch =
      gemma_from_config(Gemma::kThree, text_config(config, where), where + ": text_config");
  arch.family = "gemma3_multimodal";
  return arch;
}

Json to_config(const Architecture& arch, const Json& original) {
  Json config = original.is_object() ? original : Json::object();
  if (!config_has(config, "architectures"))
    config["architectures"] = {"Gemma3ForConditionalGeneration"};
  config["model_type"] = "gemma3";
  Json text = gemma_to_config(Gemma::kThree, arch, text_config(config, "config"));
  text.erase("architectures");
  config["text_config"] = text;
  return config;
}

Json gguf_config(const Json& config) {
  Json text = text_config(config, "config");
  text["architectures"] = {"Gemma3ForCausalLM"};
  return text;
}

std::vector<TensorSpec> tensors(const Architecture& arch) {
  DecoderNames names = gemma_names();
  names.embedding = "language_model.model.embed_tokens";
  names.layers = "language_model.model.layers.";
  names.norm = "language_model.model.norm";
  names.head = "language_model.lm_head";
  return decoder_tensors(arch, names);
}

/// transformers' own names put the model before its parts; files on the hub do not.
std::string spelling(const std::string& name) {
  const auto replaced = [&name](std::string_view from, std::string_view to) {
    return std::string(to) + name.substr(from.size());
  };
  if (name.starts_with("model.language_model."))
    return replaced("model.language_model.", "language_model.model.");
  if (name.starts_with("lm_head.")) return replaced("lm_head.", "language_model.lm_head.");
  for (const char* part : {"vision_tower.", "multi_modal_projector."}) {
    if (name.starts_with(std::string("model.") + part)) return replaced("model.", "");
  }
  return name;
}

Extra extra(const std::string& name) {
  const std::string spelled = spelling(name);
  const bool image =
      spelled.starts_with("vision_tower.") || spelled.starts_with("multi_modal_projector.");
  return image ? Extra::kCarried : Extra::kUnknown;
}

}  // namespace

const Family& family_gemma3_multimodal();
const Family& family_gemma3_multimodal() {
  static const Family family = {
      .name = "gemma3_multimodal",
      .gguf_architecture = "gemma3",
      .hf_architectures = {"Gemma3ForConditionalGeneration"},
      .hf_model_types = {"gemma3"},
      .from_config = from_config,
      .to_config = to_config,
      .from_gguf =
          [](const GgufFile& file, const std::string& where) {
            return gemma_from_gguf(Gemma::kThree, file, where);
          },
      .to_gguf = [](const Architecture& arch,
                    GgufKeys& keys) { gemma_to_gguf(Gemma::kThree, arch, keys); },
      .tensors = tensors,
      .hf_spelling = spelling,
      .hf_extra = extra,
      .hf_copies = {{"language_model.lm_head.weight", "token_embd.weight"}},
      .gguf_query_scale =
          [](const Architecture& arch) { return gemma_gguf_query_scale(Gemma::kThree, arch); },
      .gguf_config = gguf_config,
  };
  return family;
}

}  // namespace slmc
