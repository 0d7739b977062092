#include "formats/prompt_tuning.h"

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/safetensors.h"

namespace slmc {
namespace {

constexpr const char *kPromptTensor = "prompt_embd.weight",
                     *kPromptFileTensor = "prompt_embeddings";

}  // namespace

SideAdapter make_prompt(const Architecture& arch, int64_t tokens) {
  if (arch.head != Head::kLanguage)
    throw_unsupported(cat(arch.family, ": an encoder takes no prompt; decoders do"));
  if (arch.context > 0 && tokens >= arch.context)
    throw_usage(cat("prompt_tokens: expected less than the model's context of ", arch.context,
                    ", found ", tokens));
  SideAdapter adapter;
  adapter.kind = AdapterKind::kPrompt;
  adapter.shape.prompt_tokens = tokens;
  adapter.tensors = {
      {.name = kPromptTensor, .file_name = kPromptFileTensor, .shape = {tokens, arch.hidden}}};
  adapter.config = {{"peft_type", "PROMPT_TUNING"},      {"task_type", "CAUSAL_LM"},
                    {"base_model_name_or_path", ""},     {"num_virtual_tokens", tokens},
                    {"token_dim", arch.hidden},          {"num_transformer_submodules", 1},
                    {"num_attention_heads", arch.heads}, {"num_layers", arch.layers},
                    {"prompt_tuning_init", "RANDOM"},    {"prompt_tuning_init_text", nullptr},
                    {"tokenizer_name_or_path", nullptr}, {"inference_mode", true}};
  return adapter;
}

SideAdapter read_prompt(const std::string& path, const Architecture& arch) {
  const auto file = SafetensorsFile::open(path + "/adapter_model.safetensors");
  if (file.tensors.size() != 1 || file.tensors.front().name != kPromptFileTensor)
    throw_bad_input(cat(path, "/adapter_model.safetensors: expected one tensor, ",
                        kPromptFileTensor, ", found ", file.tensors.size(),
                        file.tensors.empty() ? "" : ", the first " + file.tensors.front().name));
  const SafetensorsEntry& entry = file.tensors.front();
  if (entry.shape.size() != 2 || entry.shape[0] < 1 || entry.shape[1] != arch.hidden)
    throw_bad_input(cat(path, ": ", kPromptFileTensor, ": expected [tokens, ", arch.hidden,
                        "], found ", shape_text(entry.shape),
                        "; is the adapter of another model?"));
  SideAdapter adapter = make_prompt(arch, entry.shape[0]);
  const Json config = read_json(path + "/adapter_config.json");
  if (config.value("num_virtual_tokens", Json()) != entry.shape[0])
    throw_bad_input(cat(path, "/adapter_config.json: num_virtual_tokens: expected ",
                        kPromptFileTensor, "'s ", entry.shape[0], ", found ",
                        config.value("num_virtual_tokens", Json()).dump()));
  adapter.config = config;
  auto values = std::make_shared<MemoryWeights>(arch);
  values->add(kPromptTensor,
              {file.file->data() + entry.offset, entry.dtype, entry.shape, file.file});
  adapter.values = values;
  return adapter;
}

}  // namespace slmc
