#include "formats/assets.h"

#include <filesystem>

#include "compress/core/mapped_file.h"
#include "formats/model.h"

namespace slmc {
namespace fs = std::filesystem;
namespace {

std::string text_if_there(const std::string& path) {
  return fs::is_regular_file(path) ? read_text(path) : std::string();
}

/// Small files that other programs need with the weights.
constexpr const char* kOtherFiles[] = {"modules.json",
                                       "1_Pooling/config.json",
                                       "sentence_bert_config.json",
                                       "config_sentence_transformers.json",
                                       "preprocessor_config.json",
                                       "processor_config.json"};

}  // namespace

std::string configured_template(const std::string& tokenizer_config, const std::string& where) {
  if (tokenizer_config.empty()) return "";
  const Json json = parse_json(tokenizer_config, where);
  if (!json.is_object() || !json.contains("chat_template")) return "";
  const Json& held = json["chat_template"];
  if (held.is_string()) return held.get<std::string>();
  if (!held.is_array()) return "";
  for (const Json& item : held) {
    if (item.is_object() && item.value("name", Json()) == "default" && item.contains("template") &&
        item["template"].is_string())
      return item["template"].get<std::string>();
  }
  return "";
}

Assets read_folder_assets(const std::string& folder) {
  Assets assets;
  for (const char* name : kOtherFiles) {
    const std::string text = text_if_there(folder + "/" + name);
    if (!text.empty()) assets.files.emplace_back(name, text);
  }
  assets.tokenizer_json = text_if_there(folder + "/tokenizer.json");
  assets.tokenizer_config_json = text_if_there(folder + "/tokenizer_config.json");
  assets.generation_config_json = text_if_there(folder + "/generation_config.json");
  assets.special_tokens_map_json = text_if_there(folder + "/special_tokens_map.json");
  assets.chat_template = text_if_there(folder + "/chat_template.jinja");
  if (assets.chat_template.empty())  // Of a processor, for models that also see.
    assets.chat_template = configured_template(text_if_there(folder + "/chat_template.json"),
                                               folder + "/chat_template.json");
  if (assets.chat_template.empty())
    assets.chat_template =
        configured_template(assets.tokenizer_config_json, folder + "/tokenizer_config.json");
  return assets;
}

}  // namespace slmc
