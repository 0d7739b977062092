// A tokenizer as GGUF keys, so that llama.cpp and Ollama tokenize as tokenizer.json says. llama.cpp
// knows split patterns by name only, so a tokenizer is written when it is of a form that a name
// stands for, and refused otherwise.
#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer.h"
#include "formats/tokenizer_fields.h"
#include "formats/tokenizer_gguf_rules.h"
#include "formats/tokenizer_json.h"
#include "formats/tokenizer_model.h"
#include "formats/tokenizer_patterns.h"

namespace slmc {
namespace {

using namespace tokenization;

const Json& part(const Json& json, const char* key) {
  static const Json null;
  const auto found = json.find(key);
  return found == json.end() ? null : *found;
}

std::string type_of(const Json& json) {
  const Json& type = json.is_object() ? part(json, "type") : json;
  return type.is_string() ? type.get<std::string>() : "";
}

bool flag(const Json& json, const char* key, bool fallback) {
  const Json& value = part(json, key);
  return value.is_boolean() ? value.get<bool>() : fallback;
}

/// The name of the split pattern of a byte-level pre-tokenizer; "" for any other.
std::string pattern_name(const Json& pre) {
  if (type_of(pre) == "ByteLevel") {
    return flag(pre, "use_regex", true) && !flag(pre, "add_prefix_space", true) ? "gpt-2" : "";
  }
  const Json& parts = part(pre, "pretokenizers");
  if (type_of(pre) != "Sequence" || !parts.is_array() || parts.size() != 2) return "";
  const Json &split = parts[0], &bytes = parts[1];
  const Json& pattern = part(split, "pattern");
  const Json& regex = pattern.is_object() ? part(pattern, "Regex") : pattern;
  if (type_of(split) != "Split" || part(split, "behavior") != "Isolated" ||
      flag(split, "invert", false) || !regex.is_string())
    return "";
  if (type_of(bytes) != "ByteLevel" || flag(bytes, "use_regex", true) ||
      flag(bytes, "add_prefix_space", true))
    return "";
  for (const KnownPattern& known : known_patterns()) {
    if (regex.get<std::string>() == known.regex) return std::string(known.name);
  }
  return "";
}

/// True if the merges rebuild every token from its own text, so that `ignore_merges` makes no
/// difference.
bool merges_rebuild_tokens(const TokenizerFile& file, const std::string& where) {
  TokenizerFile copy = file;
  copy.shell["model"]["ignore_merges"] = false;
  std::set<int32_t> added;
  for (const Json& token : part(file.shell, "added_tokens"))
    added.insert(file.vocabulary.find(token.value("content", "")));
  const auto model = make_token_model(copy, where);
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < file.vocabulary.size(); ++id) {
    if (!file.vocabulary.has(id) || added.count(id) > 0) continue;
    ids.clear();
    model->encode(file.vocabulary.text(id), ids);
    if (ids.size() != 1 || ids[0] != id) return false;
  }
  return true;
}

/// `tokenizer.ggml.pre` of a byte-level tokenizer.
std::string choose_pre(const TokenizerFile& file, const std::string& where) {
  const std::string name = pattern_name(part(file.shell, "pre_tokenizer"));
  if (name.empty()) {
    throw_unsupported(cat(where,
                          ": llama.cpp knows no pre-tokenizer that splits as this tokenizer does; "
                          "known to slmc: gpt-2, llama-bpe, "
                          "qwen2 (write a safetensors folder instead)"));
  }
  const std::string normalizer = type_of(part(file.shell, "normalizer"));
  if (!(normalizer.empty() || (normalizer == "NFC" && name == "qwen2"))) {
    throw_unsupported(
        cat(where, ": llama.cpp has no normalizer ", normalizer, " for pre-tokenizer ", name));
  }
  const Json& model = file.shell["model"];
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json& value = part(model, key);
    if (value.is_string() && !value.get<std::string>().empty())
      throw_unsupported(cat(where, ": llama.cpp has no ", key));
  }
  // llama.cpp takes whole words from the vocabulary without merging for llama-bpe, and only there;
  // dbrx is the same pattern without that.
  const bool ignores = flag(model, "ignore_merges", false);
  if (ignores == (name == "llama-bpe") || merges_rebuild_tokens(file, where)) return name;
  if (name == "llama-bpe") return "dbrx";
  throw_unsupported(cat(where, ": llama.cpp's pre-tokenizer ", name,
                        " has no ignore_merges, which this tokenizer needs"));
}

/// Whether a SentencePiece-like tokenizer puts a space first; empty if it is not of that form.
std::optional<bool> space_prefix(const Json& shell) {
  if (!part(shell, "pre_tokenizer").is_null()) return std::nullopt;
  Json steps = part(shell, "normalizer");
  steps = type_of(steps) == "Sequence" ? part(steps, "normalizers") : Json::array({steps});
  const Json prepend = sentence_prepend(), replace = sentence_replace();
  if (steps == Json::array({prepend, replace})) return true;
  if (steps == Json::array({replace})) return false;
  return std::nullopt;
}

/// llama.cpp merges any two neighbours whose joined text is a token, best score first. That is what
/// ranked merges do if every such pair is among them.
void check_all_pairs_merge(const TokenizerFile& file, const std::string& where) {
  std::set<std::pair<std::string_view, std::string_view>> listed;
  const auto merges = file.merges();
  listed.insert(merges.begin(), merges.end());
  for (int32_t id = 0; id < file.vocabulary.size(); ++id) {
    const std::string_view text = file.vocabulary.text(id);
    if (is_byte_token(text)) continue;
    for (size_t i = 1; i < text.size(); ++i) {
      const std::string_view left = text.substr(0, i), right = text.substr(i);
      if (file.vocabulary.find(left) < 0 || file.vocabulary.find(right) < 0 ||
          listed.count({left, right}) > 0)
        continue;
      throw_unsupported(
          cat(where, ": llama.cpp would merge ", Json(std::string(left)).dump(), " and ",
              Json(std::string(right)).dump(),
              ", which this tokenizer does not (write a safetensors folder instead)"));
    }
  }
}

struct TokenTables {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
};

/// `prefix`: of a WordPiece model, whose pieces llama.cpp spells otherwise; else empty.
TokenTables token_tables(const TokenizerFile& file, const Tokenizer& tokenizer, int64_t vocab,
                         bool byte_level, const std::string& prefix) {
  TokenTables tables;
  std::set<int32_t> added;
  for (const Json& token : part(file.shell, "added_tokens"))
    added.insert(tokenizer.token_id(token.value("content", "")));
  const Json& unknown = part(file.shell["model"], "unk_token");
  for (int32_t id = 0; id < vocab; ++id) {
    std::string text = tokenizer.token_text(id);
    int32_t type = kNormalToken;
    const bool word_piece = !prefix.empty() && added.count(id) == 0;
    if (word_piece && file.vocabulary.has(id)) text = gguf_piece(text, prefix);
    if (text.empty() && added.count(id) == 0 && !file.vocabulary.has(id)) {
      text = cat("[PAD", id, "]");
      type = kUnusedToken;
    } else if (!byte_level && unknown.is_string() && text == unknown.get<std::string>()) {
      type = kUnknownToken;
    } else if (!byte_level && is_byte_token(text) && file.vocabulary.has(id)) {
      type = kByteToken;
    } else if (tokenizer.is_special(id)) {
      type = kControlToken;
    } else if (added.count(id) > 0) {
      type = kUserToken;
    }
    tables.tokens.push_back(std::move(text));
    tables.types.push_back(type);
  }
  return tables;
}

/// Minus the rank of the first merge that makes the token; tokens that no merge makes stay at 0.
std::vector<float> merge_scores(const TokenizerFile& file, int64_t vocab) {
  std::vector<float> scores(static_cast<size_t>(vocab), 0.0f);
  std::vector<bool> seen(static_cast<size_t>(vocab), false);
  float rank = 0;
  for (const auto& [left, right] : file.merges()) {
    rank += 1;
    const int32_t id = file.vocabulary.find(std::string(left) + std::string(right));
    if (id < 0 || id >= vocab || seen[static_cast<size_t>(id)]) continue;
    seen[static_cast<size_t>(id)] = true;
    scores[static_cast<size_t>(id)] = -rank;
  }
  return scores;
}

std::vector<std::string> merge_lines(const TokenizerFile& file, const std::string& where) {
  std::vector<std::string> lines;
  lines.reserve(file.merge_places.size());
  for (const auto& [left, right] : file.merges()) {
    if (left.find(' ') != std::string_view::npos || right.find(' ') != std::string_view::npos) {
      throw_unsupported(cat(where, ": a merge has a token with a space, which GGUF cannot hold"));
    }
    lines.push_back(cat(left, " ", right));
  }
  return lines;
}

void set_special_ids(const Tokenizer& tokenizer, const Json& config, const Json& shell,
                     const Architecture& arch, GgufKeys& keys) {
  const auto set = [&](const char* key, int64_t id) {
    if (id >= 0 && id < arch.vocab)
      keys.set(cat("tokenizer.ggml.", key), static_cast<uint32_t>(id));
  };
  const auto named = [&](const Json& value) -> int64_t {
    const Json& text = value.is_object() ? part(value, "content") : value;
    return text.is_string() ? tokenizer.token_id(text.get<std::string>()) : -1;
  };
  set("bos_token_id", tokenizer.bos() >= 0 ? tokenizer.bos() : arch.bos);
  set("eos_token_id", tokenizer.eos() >= 0 ? tokenizer.eos() : arch.eos);
  const int64_t pad = config.is_object() ? named(part(config, "pad_token")) : -1;
  set("padding_token_id", pad >= 0 ? pad : arch.pad);
  set("unknown_token_id", named(part(shell["model"], "unk_token")));
  if (type_of(shell["model"]) ==
      "WordPiece") {  // llama.cpp calls what ends a text a separator here.
    set("cls_token_id", tokenizer.bos());
    set("seperator_token_id", tokenizer.eos());  // Its spelling.
    set("mask_token_id", config.is_object() ? named(part(config, "mask_token")) : -1);
    keys.set("tokenizer.ggml.add_bos_token", tokenizer.adds_bos());
    keys.set("tokenizer.ggml.add_sep_token", tokenizer.adds_eos());
    return;
  }
  keys.set("tokenizer.ggml.add_bos_token", tokenizer.adds_bos());
  keys.set("tokenizer.ggml.add_eos_token", tokenizer.adds_eos());
}

/// Refuses a WordPiece tokenizer that is not BERT's, the only one that llama.cpp has.
void check_bert(const Json& shell, const std::string& where, GgufKeys& keys) {
  const Json& normalizer = part(shell, "normalizer");
  const Json& model = shell["model"];
  const Json& prefix = part(model, "continuing_subword_prefix");
  const bool usual = type_of(normalizer) == "BertNormalizer" &&
                     flag(normalizer, "clean_text", true) &&
                     flag(normalizer, "handle_chinese_chars", true) &&
                     type_of(part(shell, "pre_tokenizer")) == "BertPreTokenizer" &&
                     (prefix.is_null() || prefix == "##");
  if (!usual)
    throw_unsupported(cat(where,
                          ": llama.cpp's WordPiece normalizes and splits as BERT does, which "
                          "this tokenizer does not (write a safetensors folder instead)"));
  const bool lower = flag(normalizer, "lowercase", true);
  keys.set("tokenizer.ggml.normalizer.lowercase", lower);
  keys.set("tokenizer.ggml.normalizer.strip_accents", flag(normalizer, "strip_accents", lower));
}

/// The texts from which the whole is rebuilt.
void set_own_keys(const TokenizerFile& file, const Tokenizer& tokenizer, const Assets& assets,
                  Json config, GgufKeys& keys) {
  Json shell = file.shell;
  Json outside = Json::array();
  for (const Json& token : part(shell, "added_tokens")) {
    const std::string content = token.value("content", "");
    if (file.vocabulary.find(content) < 0) outside.push_back(tokenizer.token_id(content));
  }
  if (!outside.empty())
    shell[kOutsideKey] = outside;  // Added tokens that model.vocab does not have.
  keys.set("slmc.tokenizer", shell.dump());
  if (!assets.tokenizer_config_json.empty()) {
    config.erase("chat_template");  // It has a key of its own.
    keys.set("slmc.tokenizer_config", config.dump());
  }
  if (!assets.special_tokens_map_json.empty())
    keys.set("slmc.special_tokens_map", assets.special_tokens_map_json);
  if (!assets.generation_config_json.empty())
    keys.set("slmc.generation_config", assets.generation_config_json);
}

}  // namespace

void tokenizer_to_gguf(const Assets& assets, const Architecture& arch, const std::string& where,
                       GgufKeys& keys) {
  if (assets.tokenizer_json.empty()) return;
  const TokenizerFile file = parse_tokenizer_json(assets.tokenizer_json, where);
  const auto tokenizer = Tokenizer::from_assets(assets, where);
  Json config = Json::object();
  if (!assets.tokenizer_config_json.empty())
    config = parse_json(assets.tokenizer_config_json, cat(where, ": tokenizer_config.json"));
  if (!config.is_object()) throw_bad_input(cat(where, ": tokenizer_config.json is not an object"));
  if (tokenizer->vocab_size() > arch.vocab) {
    throw_bad_input(cat(where, ": the tokenizer has ids up to ", tokenizer->vocab_size() - 1,
                        ", the model's vocabulary has ", arch.vocab, " rows"));
  }
  if (file.has_scores) {
    throw_unsupported(cat(where,
                          ": a Unigram tokenizer is not written to GGUF (write a safetensors "
                          "folder instead)"));
  }
  const bool word_piece = !file.has_merges;
  const bool byte_level = !word_piece && !flag(file.shell["model"], "byte_fallback", false);
  if (word_piece) {
    if (type_of(file.shell["model"]) == "WordLevel")
      throw_unsupported(cat(where, ": llama.cpp has no WordLevel tokenizer"));
    check_bert(file.shell, where, keys);
    keys.set("tokenizer.ggml.model", std::string("bert"));
    keys.set("tokenizer.ggml.pre", std::string("default"));
  } else if (byte_level) {
    keys.set("tokenizer.ggml.model", std::string("gpt2"));
    keys.set("tokenizer.ggml.pre", choose_pre(file, where));
  } else {
    const auto prefix = space_prefix(file.shell);
    if (!prefix.has_value()) {
      throw_unsupported(cat(where,
                            ": llama.cpp knows no tokenizer with byte_fallback that normalizes and "
                            "splits as this one does"));
    }
    check_all_pairs_merge(file, where);
    keys.set("tokenizer.ggml.model", std::string("llama"));
    keys.set("tokenizer.ggml.pre", std::string("default"));
    keys.set("tokenizer.ggml.add_space_prefix", *prefix);
  }
  TokenTables tables =
      token_tables(file, *tokenizer, arch.vocab, byte_level, word_piece ? "##" : "");
  keys.set("tokenizer.ggml.tokens", GgufArray(std::move(tables.tokens)));
  if (!byte_level && !word_piece)
    keys.set("tokenizer.ggml.scores", GgufArray(merge_scores(file, arch.vocab)));
  keys.set("tokenizer.ggml.token_type", GgufArray(std::move(tables.types)));
  if (!word_piece) keys.set("tokenizer.ggml.merges", GgufArray(merge_lines(file, where)));
  set_special_ids(*tokenizer, config, file.shell, arch, keys);
  if (!assets.chat_template.empty()) keys.set("tokenizer.chat_template", assets.chat_template);
  set_own_keys(file, *tokenizer, assets, std::move(config), keys);
}

}  // namespace slmc
