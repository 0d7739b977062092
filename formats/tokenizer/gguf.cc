// A tokenizer as GGUF keys, so that llama.cpp and Ollama tokenize as tokenizer.json says. llama.cpp
// knows split patterns by name only, so a tokenizer is written when it is of a form that a name
// stands for, and refused otherwise.
#include <algorithm>
#include <set>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/gguf_rules.h"
#include "formats/tokenizer/json.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/patterns.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

using namespace tokenization;

/// llama.cpp's name of what a byte-level pre-tokenizer does; "" if it has none.
std::string pattern_name(const Json& pre) {
  if (type_of(pre) == "ByteLevel") {
    return flag(pre, "use_regex", true) && !flag(pre, "add_prefix_space", true) ? "gpt-2" : "";
  }
  const Json& parts = part(pre, "pretokenizers");
  if (type_of(pre) != "Sequence" || !parts.is_array() || parts.size() != 2) return "";
  const Json &split = parts[0], &bytes = parts[1];
  if (type_of(split) == "Digits") {
    const bool usual = flag(split, "individual_digits", false) && type_of(bytes) == "ByteLevel" &&
                       flag(bytes, "use_regex", true) && !flag(bytes, "add_prefix_space", true);
    return usual ? "smollm" : "";
  }
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
                          "qwen2, smollm (write a safetensors folder instead)"));
  }
  const std::vector<Json> steps = normalizer_steps(file.shell);
  const std::string normalizer = steps.empty()       ? ""
                                 : steps.size() == 1 ? type_of(steps.front())
                                                     : "Sequence";
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

enum class Kind { kByteLevel, kSentence, kUnigram, kWordPiece, kWordLevel };

Kind kind_of(const TokenizerFile& file) {
  if (file.has_scores) return Kind::kUnigram;
  if (!file.has_merges)
    return type_of(part(file.shell, "model")) == "WordLevel" ? Kind::kWordLevel : Kind::kWordPiece;
  return flag(part(file.shell, "model"), "byte_fallback", false) ? Kind::kSentence
                                                                 : Kind::kByteLevel;
}

/// -1 if the model has no unknown token.
int64_t unknown_id(const TokenizerFile& file) {
  const Json& model = part(file.shell, "model");
  const Json& text = part(model, "unk_token");
  if (text.is_string()) return file.vocabulary.find(text.get<std::string>());
  const Json& id = part(model, "unk_id");
  return id.is_number_integer() ? id.get<int64_t>() : -1;
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
  const int64_t unknown = unknown_id(file);
  for (int32_t id = 0; id < vocab; ++id) {
    std::string text = tokenizer.token_text(id);
    int32_t type = kNormalToken;
    const bool word_piece = !prefix.empty() && added.count(id) == 0;
    if (word_piece && file.vocabulary.has(id)) text = gguf_piece(text, prefix);
    if (text.empty() && added.count(id) == 0 && !file.vocabulary.has(id)) {
      text = cat("[PAD", id, "]");
      type = kUnusedToken;
    } else if (!byte_level && id == unknown) {
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

void set_special_ids(const Tokenizer& tokenizer, const Json& config, const TokenizerFile& file,
                     const Architecture& arch, GgufKeys& keys) {
  const int64_t unknown = unknown_id(file);
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
  set("unknown_token_id", unknown);
  if (kind_of(file) == Kind::kWordPiece) {  // llama.cpp calls what ends a text a separator here.
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

/// Added tokens may have ids beyond the embedding (Gemma 3's <image_soft_token>): no row, so no
/// place in the tables. Refuses any other id there, and one that every text would get.
void check_ids_beyond(const TokenizerFile& file, const Tokenizer& tokenizer, int64_t vocab,
                      const std::string& where) {
  if (tokenizer.vocab_size() <= vocab) return;
  std::set<int32_t> added;
  for (const Json& token : part(file.shell, "added_tokens"))
    added.insert(tokenizer.token_id(token.value("content", "")));
  const std::vector<int32_t> texts[1] = {};
  const std::vector<int32_t> around = tokenizer.assemble(texts).ids;
  for (auto id = static_cast<int32_t>(vocab); id < tokenizer.vocab_size(); ++id) {
    const bool loose = added.count(id) > 0 || !file.vocabulary.has(id);
    if (loose && std::find(around.begin(), around.end(), id) == around.end()) continue;
    throw_bad_input(cat(where, ": the tokenizer has ids up to ", tokenizer.vocab_size() - 1,
                        ", the model's vocabulary has ", vocab, " rows"));
  }
}

/// The texts from which the whole is rebuilt.
void set_own_keys(const TokenizerFile& file, const Tokenizer& tokenizer, const Assets& assets,
                  int64_t vocab, Json config, GgufKeys& keys) {
  Json shell = file.shell;
  Json outside = Json::array();
  for (const Json& token : part(shell, "added_tokens")) {
    const std::string content = token.value("content", "");
    if (file.vocabulary.find(content) < 0) outside.push_back(tokenizer.token_id(content));
  }
  if (!outside.empty())
    shell[kOutsideKey] = outside;  // Added tokens that model.vocab does not have.
  Json beyond = Json::object();
  for (auto id = static_cast<int32_t>(vocab); id < file.vocabulary.size(); ++id) {
    if (file.vocabulary.has(id)) beyond[std::string(file.vocabulary.text(id))] = id;
  }
  if (!beyond.empty()) shell[kBeyondKey] = beyond;  // The tables end before them.
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
  check_ids_beyond(file, *tokenizer, arch.vocab, where);
  const Kind kind = kind_of(file);
  std::vector<float> scores;
  switch (kind) {
    case Kind::kWordLevel:
      throw_unsupported(cat(where, ": llama.cpp has no WordLevel tokenizer"));
    case Kind::kWordPiece:
      check_bert(file.shell, where, keys);
      keys.set("tokenizer.ggml.model", std::string("bert"));
      keys.set("tokenizer.ggml.pre", std::string("default"));
      break;
    case Kind::kByteLevel:
      keys.set("tokenizer.ggml.model", std::string("gpt2"));
      keys.set("tokenizer.ggml.pre", choose_pre(file, where));
      break;
    case Kind::kSentence:
      scores = sentence_to_gguf(file, arch.vocab, where, keys);
      break;
    case Kind::kUnigram:
      scores = unigram_to_gguf(file, arch.vocab, where, keys);
      break;
  }
  TokenTables tables = token_tables(file, *tokenizer, arch.vocab, kind == Kind::kByteLevel,
                                    kind == Kind::kWordPiece ? "##" : "");
  keys.set("tokenizer.ggml.tokens", GgufArray(std::move(tables.tokens)));
  if (!scores.empty()) keys.set("tokenizer.ggml.scores", GgufArray(std::move(scores)));
  keys.set("tokenizer.ggml.token_type", GgufArray(std::move(tables.types)));
  if (file.has_merges) keys.set("tokenizer.ggml.merges", GgufArray(merge_lines(file, where)));
  set_special_ids(*tokenizer, config, file, arch, keys);
  if (!assets.chat_template.empty()) keys.set("tokenizer.chat_template", assets.chat_template);
  set_own_keys(file, *tokenizer, assets, arch.vocab, std::move(config), keys);
}

std::vector<std::string> tokenizer_gguf_notes(const Assets& assets, const std::string& where) {
  std::vector<std::string> notes;
  if (assets.tokenizer_json.empty()) return notes;
  const TokenizerFile file = parse_tokenizer_json(assets.tokenizer_json, where);
  if (kind_of(file) == Kind::kSentence && !sentence_opens_alike(file))
    notes.push_back(
        "llama.cpp puts a space before texts that begin with one and before what follows a special "
        "token; this tokenizer does not.");
  if (kind_of(file) == Kind::kUnigram)
    notes.push_back(
        "llama.cpp reads the character U+2581, and combining marks behind characters that the "
        "tokenizer replaces, otherwise than this tokenizer.");
  const std::vector<Json> steps = normalizer_steps(file.shell);
  if (kind_of(file) == Kind::kByteLevel && steps.size() == 1 && type_of(steps[0]) == "NFC")
    notes.push_back(
        "llama.cpp does not compose characters (NFC) before it tokenizes; texts that are composed "
        "already, as most are, give the same tokens.");
  return notes;
}

}  // namespace slmc
