// Rebuilding tokenizer.json from GGUF keys: exactly for slmc's own files, and for foreign ones
// whose pre-tokenizer is among those that slmc knows.
#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/gguf_rules.h"
#include "formats/tokenizer/json.h"
#include "formats/tokenizer/patterns.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/unicode.h"

namespace slmc {
namespace {

using namespace tokenization;

constexpr int64_t kMaxTokens = 1 << 23;

struct Tables {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  std::vector<std::string> merges;
};

Tables read_tables(const GgufKeys& keys, const std::string& where) {
  Tables tables;
  tables.tokens = keys.strings("tokenizer.ggml.tokens", where);
  if (tables.tokens.size() > static_cast<size_t>(kMaxTokens))
    throw_bad_input(cat(where, ": over ", kMaxTokens, " tokens"));
  tables.types.assign(tables.tokens.size(), kNormalToken);
  if (keys.has("tokenizer.ggml.token_type"))
    tables.types = keys.integers("tokenizer.ggml.token_type", where);
  if (tables.types.size() != tables.tokens.size()) {
    throw_bad_input(cat(where, ": tokenizer.ggml.token_type has ", tables.types.size(),
                        " entries for ", tables.tokens.size(), " tokens"));
  }
  if (keys.has("tokenizer.ggml.merges"))
    tables.merges = keys.strings("tokenizer.ggml.merges", where);
  for (size_t id = 0; id < tables.tokens.size(); ++id) {
    if (!unicode::is_valid(tables.tokens[id]))
      throw_bad_input(cat(where, ": token ", id, " of tokenizer.ggml.tokens is not UTF-8"));
  }
  return tables;
}

void add_merge_lines(const Tables& tables, const std::string& where, TokenizerFile& file) {
  file.has_merges = true;
  for (size_t i = 0; i < tables.merges.size(); ++i) {
    const std::string_view line = tables.merges[i];
    const size_t space = line.find(' ', 1);
    if (!unicode::is_valid(line) || space == std::string_view::npos) {
      throw_bad_input(cat(where, ": merge ", i,
                          " of tokenizer.ggml.merges is not two tokens separated by a space"));
    }
    file.add_merge(line.substr(0, space), line.substr(space + 1));
  }
}

/// Fills the vocabulary with the tokens that are not in `left_out` nor unused.
void add_tokens(const Tables& tables, const std::set<int64_t>& left_out, const std::string& where,
                TokenizerFile& file) {
  file.vocabulary.reserve(tables.tokens.size(), tables.tokens.size() * 8);
  for (size_t id = 0; id < tables.tokens.size(); ++id) {
    if (tables.types[id] == kUnusedToken || left_out.count(static_cast<int64_t>(id)) > 0) continue;
    if (!file.vocabulary.add(tables.tokens[id], static_cast<int32_t>(id))) {
      throw_bad_input(
          cat(where, ": token ", id, " of tokenizer.ggml.tokens is the same as an earlier one"));
    }
  }
}

/// WordPiece tokens as tokenizer.json spells them.
void spell_pieces(Tables& tables) {
  for (size_t id = 0; id < tables.tokens.size(); ++id) {
    if (tables.types[id] == kNormalToken)
      tables.tokens[id] = piece_of_gguf(tables.tokens[id], "##");
  }
}

/// Unigram's, by id. Ids without a token have one too, which does not matter.
void add_scores(const GgufKeys& keys, const char* key, const std::string& where,
                TokenizerFile& file) {
  file.has_scores = true;
  file.scores = keys.numbers(key, where);
  if (file.scores.size() < static_cast<size_t>(file.vocabulary.size()))
    throw_bad_input(cat(where, ": key ", key, " has ", file.scores.size(), " entries for ",
                        file.vocabulary.size(), " tokens"));
  file.scores.resize(static_cast<size_t>(file.vocabulary.size()));
}

/// Adds what kBeyondKey says and takes it out of the shell.
void add_beyond_tables(const Tables& tables, const std::string& where, TokenizerFile& file) {
  if (!file.shell.contains(kBeyondKey)) return;
  const Json beyond = file.shell[kBeyondKey];
  file.shell.erase(kBeyondKey);
  const auto refuse = [&where] {
    throw_bad_input(cat(where, ": key slmc.tokenizer: ", kBeyondKey,
                        " must hold new tokens with ids beyond tokenizer.ggml.tokens"));
  };
  if (!beyond.is_object()) refuse();
  for (const auto& [text, value] : beyond.items()) {
    const int64_t id = value.is_number_integer() ? value.get<int64_t>() : -1;
    if (id < static_cast<int64_t>(tables.tokens.size()) || id >= kMaxTokens ||
        !file.vocabulary.add(text, static_cast<int32_t>(id)))
      refuse();
  }
}

Assets rebuild_own(const GgufKeys& keys, const std::string& where) {
  TokenizerFile file;
  file.shell = parse_json(keys.string("slmc.tokenizer", where), cat(where, ": key slmc.tokenizer"));
  if (!file.shell.is_object() || !file.shell.contains("model") ||
      !file.shell["model"].is_object()) {
    throw_bad_input(
        cat(where, ": key slmc.tokenizer is not a tokenizer.json without its vocabulary"));
  }
  std::set<int64_t> outside;
  if (file.shell.contains(kOutsideKey)) {
    for (const Json& id : file.shell[kOutsideKey]) {
      if (!id.is_number_integer())
        throw_bad_input(cat(where, ": key slmc.tokenizer: ", kOutsideKey, " must hold integers"));
      outside.insert(id.get<int64_t>());
    }
    file.shell.erase(kOutsideKey);
  }
  Tables tables = read_tables(keys, where);
  const Json& type = file.shell["model"].contains("type") ? file.shell["model"]["type"] : Json();
  if (type == "WordPiece") spell_pieces(tables);
  add_tokens(tables, outside, where, file);
  add_beyond_tables(tables, where, file);
  if (type == "Unigram")
    add_scores(
        keys, keys.has("slmc.tokenizer_scores") ? "slmc.tokenizer_scores" : "tokenizer.ggml.scores",
        where, file);
  else if (type != "WordPiece")
    add_merge_lines(tables, where, file);
  Assets assets;
  assets.tokenizer_json = tokenizer_json_text(file);
  assets.chat_template = keys.string_or("tokenizer.chat_template", "", where);
  const std::string config = keys.string_or("slmc.tokenizer_config", "", where);
  if (!config.empty()) {
    Json json = parse_json(config, cat(where, ": key slmc.tokenizer_config"));
    if (json.is_object() && !assets.chat_template.empty())
      json["chat_template"] = assets.chat_template;
    assets.tokenizer_config_json = json.dump(2);
  }
  assets.special_tokens_map_json = keys.string_or("slmc.special_tokens_map", "", where);
  assets.generation_config_json = keys.string_or("slmc.generation_config", "", where);
  return assets;
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

/// How llama.cpp's names read in tokenizer.json.
struct PreName {
  std::string_view name, pattern;
  bool ignore_merges = false, nfc = false, digits = false;
};
constexpr PreName kPreNames[] = {
    {.name = "gpt-2", .pattern = "gpt-2"},
    {.name = "llama-bpe", .pattern = "llama-bpe", .ignore_merges = true},
    {.name = "llama3", .pattern = "llama-bpe", .ignore_merges = true},
    {.name = "llama-v3", .pattern = "llama-bpe", .ignore_merges = true},
    {.name = "dbrx", .pattern = "llama-bpe"},
    {.name = "smaug-bpe", .pattern = "llama-bpe"},
    {.name = "qwen2", .pattern = "qwen2", .nfc = true},
    {.name = "deepseek-r1-qwen", .pattern = "qwen2"},
    {.name = "smollm", .pattern = "gpt-2", .digits = true},
};

void set_byte_level_rules(const GgufKeys& keys, const std::string& where, Json& shell) {
  const std::string pre = keys.string_or("tokenizer.ggml.pre", "", where);
  const auto* found = std::find_if(std::begin(kPreNames), std::end(kPreNames),
                                   [&](const PreName& p) { return p.name == pre; });
  if (found == std::end(kPreNames)) {
    std::vector<std::string> names;
    for (const PreName& p : kPreNames) names.emplace_back(p.name);
    throw_unsupported(cat(where, ": pre-tokenizer ", pre.empty() ? "(none)" : pre,
                          " is not one that slmc has tested; known: ", join(names, ", ")));
  }
  if (found->nfc) shell["normalizer"] = {{"type", "NFC"}};
  if (found->pattern == "gpt-2") {
    shell["pre_tokenizer"] = byte_level(true);
    if (found->digits) {
      const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
      shell["pre_tokenizer"] = {{"type", "Sequence"},
                                {"pretokenizers", Json::array({digits, byte_level(true)})}};
    }
  } else {
    const std::string regex(known_pattern(found->pattern)->regex);
    const Json split = {{"type", "Split"},
                        {"pattern", {{"Regex", regex}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
    shell["pre_tokenizer"] = {{"type", "Sequence"},
                              {"pretokenizers", Json::array({split, byte_level(false)})}};
  }
  shell["decoder"] = byte_level(true);
  shell["model"] = {{"type", "BPE"},
                    {"fuse_unk", false},
                    {"byte_fallback", false},
                    {"ignore_merges", found->ignore_merges}};
}

void set_sentence_rules(const GgufKeys& keys, const Tables& tables, const std::string& where,
                        Json& shell) {
  const bool prefix = keys.boolean_or("tokenizer.ggml.add_space_prefix", true, where);
  Json steps = Json::array({sentence_replace()});
  if (prefix) steps.insert(steps.begin(), sentence_prepend());
  shell["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  Json decoders = Json::array(
      {{{"type", "Replace"}, {"pattern", {{"String", "\xe2\x96\x81"}}}, {"content", " "}},
       {{"type", "ByteFallback"}},
       {{"type", "Fuse"}}});
  if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  shell["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
  shell["model"] = {
      {"type", "BPE"}, {"fuse_unk", true}, {"byte_fallback", true}, {"ignore_merges", false}};
  const auto unknown = std::find(tables.types.begin(), tables.types.end(), kUnknownToken);
  if (unknown != tables.types.end())
    shell["model"]["unk_token"] =
        tables.tokens[static_cast<size_t>(unknown - tables.types.begin())];
}

/// Every way to make a token of two others, best score first; among equals those whose parts are
/// longer on the left, as in converters from SentencePiece.
void add_scored_merges(const GgufKeys& keys, const Tables& tables, const std::string& where,
                       TokenizerFile& file) {
  const std::vector<float> scores = keys.floats("tokenizer.ggml.scores", where);
  if (scores.size() != tables.tokens.size()) {
    throw_bad_input(cat(where, ": tokenizer.ggml.scores has ", scores.size(), " entries for ",
                        tables.tokens.size(), " tokens"));
  }
  struct Candidate {
    float score;
    std::string_view left, right;
  };
  std::vector<Candidate> candidates;
  std::set<float> distinct;
  for (size_t id = 0; id < tables.tokens.size(); ++id) {
    if (tables.types[id] != kNormalToken) continue;
    const std::string_view text = tables.tokens[id];
    bool made = false;
    for (size_t i = 1; i < text.size(); ++i) {
      if (file.vocabulary.find(text.substr(0, i)) < 0 || file.vocabulary.find(text.substr(i)) < 0)
        continue;
      candidates.push_back({scores[id], text.substr(0, i), text.substr(i)});
      made = true;
    }
    if (made) distinct.insert(scores[id]);
  }
  if (candidates.size() > 1 && distinct.size() < 2) {
    throw_unsupported(cat(
        where, ": all scores of the tokenizer are equal, so the order of its merges is not known"));
  }
  std::stable_sort(
      candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
        return std::make_tuple(-a.score, b.left.size()) < std::make_tuple(-b.score, a.left.size());
      });
  file.has_merges = true;
  for (const Candidate& c : candidates) file.add_merge(c.left, c.right);
}

/// BERT's rules, as llama.cpp has them.
void set_bert_rules(const GgufKeys& keys, const Tables& tables, const std::string& where,
                    Json& shell) {
  const bool lower = keys.boolean_or("tokenizer.ggml.normalizer.lowercase", true, where);
  shell["normalizer"] = {
      {"type", "BertNormalizer"},
      {"clean_text", true},
      {"handle_chinese_chars", true},
      {"strip_accents", keys.boolean_or("tokenizer.ggml.normalizer.strip_accents", lower, where)},
      {"lowercase", lower}};
  shell["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  shell["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  const int64_t unknown = keys.integer_or("tokenizer.ggml.unknown_token_id", 100, where);
  if (unknown < 0 || unknown >= static_cast<int64_t>(tables.tokens.size()))
    throw_bad_input(cat(where, ": tokenizer.ggml.unknown_token_id is ", unknown, " of ",
                        tables.tokens.size(), " tokens"));
  shell["model"] = {{"type", "WordPiece"},
                    {"unk_token", tables.tokens[static_cast<size_t>(unknown)]},
                    {"continuing_subword_prefix", "##"},
                    {"max_input_chars_per_word", 100}};
}

Json special_entry(const std::string& content, int64_t id, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

/// Adds the special tokens, the template and tokenizer_config.json.
void set_specials(const GgufKeys& keys, const Tables& tables, const std::string& where, Json& shell,
                  Assets& assets) {
  Json added = Json::array();
  for (size_t id = 0; id < tables.tokens.size(); ++id) {
    const int64_t type = tables.types[id];
    if (type == kControlToken || type == kUserToken || type == kUnknownToken) {
      added.push_back(
          special_entry(tables.tokens[id], static_cast<int64_t>(id), type != kUserToken));
    }
  }
  shell["added_tokens"] = added;
  Json config = Json::object();
  const auto name = [&](const char* key, const char* to) -> std::string {
    const int64_t id = keys.integer_or(cat("tokenizer.ggml.", key), -1, where);
    if (id < 0) return "";
    if (id >= static_cast<int64_t>(tables.tokens.size()))
      throw_bad_input(cat(where, ": tokenizer.ggml.", key, " is ", id, " of ", tables.tokens.size(),
                          " tokens"));
    config[to] = tables.tokens[static_cast<size_t>(id)];
    return tables.tokens[static_cast<size_t>(id)];
  };
  const bool bert = keys.string("tokenizer.ggml.model", where) == "bert";
  std::string bos = name("bos_token_id", "bos_token"), eos = name("eos_token_id", "eos_token");
  if (bert) {
    const std::string cls = name("cls_token_id", "cls_token");
    if (!cls.empty()) bos = cls;
    eos = name("seperator_token_id", "sep_token");
    name("mask_token_id", "mask_token");
  }
  name("unknown_token_id", "unk_token");
  name("padding_token_id", "pad_token");
  // llama.cpp's own defaults where the keys are absent: SentencePiece models and llama-bpe begin
  // with BOS.
  const std::string pre = keys.string_or("tokenizer.ggml.pre", "", where);
  const bool usual = bert || keys.string("tokenizer.ggml.model", where) == "llama" ||
                     pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3";
  Json single = Json::array(), specials = Json::object();
  const auto special = [&](const std::string& token) {
    const auto id =
        std::find(tables.tokens.begin(), tables.tokens.end(), token) - tables.tokens.begin();
    specials[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
  };
  if (!bos.empty() && keys.boolean_or("tokenizer.ggml.add_bos_token", usual, where)) special(bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  const char* add_end = bert ? "tokenizer.ggml.add_sep_token" : "tokenizer.ggml.add_eos_token";
  const bool ends = bert || keys.string("tokenizer.ggml.model", where) == "t5";
  if (!eos.empty() && keys.boolean_or(add_end, ends, where)) special(eos);
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  if (bert && !eos.empty()) pair.push_back({{"SpecialToken", {{"id", eos}, {"type_id", 1}}}});
  shell["post_processor"] = {{"type", "TemplateProcessing"},
                             {"single", single},
                             {"pair", pair},
                             {"special_tokens", specials}};
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  assets.chat_template = keys.string_or("tokenizer.chat_template", "", where);
  if (!assets.chat_template.empty()) config["chat_template"] = assets.chat_template;
  assets.tokenizer_config_json = config.dump(2);
}

}  // namespace

Assets tokenizer_from_gguf(const GgufKeys& keys, const std::string& where) {
  if (!keys.has("tokenizer.ggml.model")) return {};
  if (keys.has("slmc.tokenizer")) return rebuild_own(keys, where);
  const std::string model = keys.string("tokenizer.ggml.model", where);
  if (model != "gpt2" && model != "llama" && model != "bert" && model != "t5")
    throw_unsupported(
        cat(where, ": tokenizer model ", model, " is not supported; known: gpt2, llama, bert, t5"));
  Tables tables = read_tables(keys, where);
  Assets assets;
  TokenizerFile file;
  file.shell = {{"version", "1.0"},          {"truncation", nullptr},
                {"padding", nullptr},        {"added_tokens", Json::array()},
                {"normalizer", nullptr},     {"pre_tokenizer", nullptr},
                {"post_processor", nullptr}, {"decoder", nullptr}};
  if (model == "bert") {
    set_bert_rules(keys, tables, where, file.shell);
    spell_pieces(tables);
  } else if (model == "gpt2") {
    set_byte_level_rules(keys, where, file.shell);
  } else if (model == "t5") {
    set_unigram_rules(keys, where, file.shell);
    // llama.cpp looks for unused tokens too, and a list of scores has no gaps.
    std::replace(tables.types.begin(), tables.types.end(), int64_t{kUnusedToken},
                 int64_t{kNormalToken});
  } else {
    set_sentence_rules(keys, tables, where, file.shell);
  }
  add_tokens(tables, {}, where, file);
  if (model == "gpt2")
    add_merge_lines(tables, where, file);
  else if (model == "llama")
    add_scored_merges(keys, tables, where, file);
  else if (model == "t5")
    add_scores(keys, "tokenizer.ggml.scores", where, file);
  set_specials(keys, tables, where, file.shell, assets);
  assets.tokenizer_json = tokenizer_json_text(file);
  return assets;
}

}  // namespace slmc
