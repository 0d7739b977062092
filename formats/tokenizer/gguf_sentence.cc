// SentencePiece's two kinds of model in GGUF: merges by score ("llama" in llama.cpp) and Unigram
// ("t5"). llama.cpp normalizes and splits in its own way for each; a tokenizer is written when that
// is also its way.
#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/gguf_rules.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581 stands for a space in tokens.
constexpr float kUnusedScore = -10000.0f;

/// How a text is opened. `exact`: llama.cpp opens every text alike.
struct Opening {
  bool space = false, exact = true;
};

bool is_metaspace(const Json& pre) {
  const Json& replacement = part(pre, "replacement");
  return type_of(pre) == "Metaspace" && (replacement.is_null() || replacement == kSpace);
}

std::string metaspace_scheme(const Json& pre) {
  const Json& scheme = part(pre, "prepend_scheme");
  if (scheme.is_string()) return scheme.get<std::string>();
  return flag(pre, "add_prefix_space", true) ? "always" : "never";
}

/// True if some token has a space that is not its beginning, so that splitting at spaces matters.
bool has_inner_space(const TokenizerFile& file) {
  for (int32_t id = 0; id < file.vocabulary.size(); ++id) {
    if (file.vocabulary.text(id).find(kSpace, 1) != std::string_view::npos) return true;
  }
  return false;
}

/// Empty if the tokenizer is not of a form that llama.cpp's "llama" has.
std::optional<Opening> opening_of(const TokenizerFile& file) {
  const std::vector<Json> steps = normalizer_steps(file.shell);
  const Json& pre = part(file.shell, "pre_tokenizer");
  const Json replace = sentence_replace();
  if (steps.empty() && is_metaspace(pre)) {
    if (flag(pre, "split", true) && has_inner_space(file)) return std::nullopt;
    const std::string scheme = metaspace_scheme(pre);
    return Opening{.space = scheme != "never", .exact = scheme == "never"};
  }
  // A split at spaces finds none once they are replaced (Gemma).
  const bool idle = type_of(pre) == "Split" && part(pre, "pattern") == Json{{"String", " "}};
  if (!pre.is_null() && !idle) return std::nullopt;
  if (steps == std::vector<Json>{sentence_prepend(), replace}) return Opening{.space = true};
  if (steps == std::vector<Json>{replace}) return Opening{.space = false};
  return std::nullopt;
}

/// llama.cpp merges any two neighbours whose joined text is a token, best score first. That is what
/// ranked merges do if every such pair is among them.
void check_all_pairs_merge(const TokenizerFile& file, const std::string& where) {
  std::set<std::pair<std::string_view, std::string_view>> listed;
  const auto merges = file.merges();
  listed.insert(merges.begin(), merges.end());
  std::set<std::string_view> added;  // Found in a text before anything merges.
  for (const Json& token : part(file.shell, "added_tokens")) {
    if (part(token, "content").is_string())
      added.insert(part(token, "content").get_ref<const std::string&>());
  }
  for (int32_t id = 0; id < file.vocabulary.size(); ++id) {
    const std::string_view text = file.vocabulary.text(id);
    if (is_byte_token(text) || added.count(text) > 0) continue;
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

/// The base64 text of the one "Precompiled" normalizer that may stand first, alone or with a
/// Replace of runs of spaces by one, which llama.cpp's Unigram does by itself. Empty if there is no
/// such table; nothing for any other form.
std::optional<std::string> charsmap_of(const Json& shell) {
  std::vector<Json> steps = normalizer_steps(shell);
  if (steps.size() == 2 && type_of(steps[1]) == "Replace" && part(steps[1], "content") == " " &&
      part(steps[1], "pattern") == Json{{"Regex", " {2,}"}})
    steps.pop_back();
  if (steps.empty()) return "";
  if (steps.size() != 1 || type_of(steps[0]) != "Precompiled") return std::nullopt;
  const Json& table = part(steps[0], "precompiled_charsmap");
  return table.is_string() ? std::optional(table.get<std::string>()) : std::nullopt;
}

/// Whether the pre-tokenizer cuts a text into words, each with a space in front. `only_spaces`:
/// at spaces, not at all white space.
bool splits_words(const Json& pre, bool& only_spaces) {
  const Json& parts = part(pre, "pretokenizers");
  if (type_of(pre) != "Sequence" || !parts.is_array() || parts.size() != 2) return false;
  only_spaces = type_of(parts[0]) == "Split" && part(parts[0], "behavior") == "Removed" &&
                part(parts[0], "pattern") == Json{{"String", " "}} &&
                !flag(parts[0], "invert", false);
  return (only_spaces || type_of(parts[0]) == "WhitespaceSplit") && is_metaspace(parts[1]) &&
         metaspace_scheme(parts[1]) == "always";
}

/// llama.cpp takes the character U+0020 alone for a space; the table must have made it of all
/// others.
bool all_white_space_becomes_space(const std::string& charsmap, const std::string& where) {
  if (charsmap.empty()) return false;
  const auto table = make_precompiled(charsmap, where);
  for (const auto& [first, last] : unicode::ranges_where(
           [](uint8_t property, uint32_t) { return unicode::is_space(property); }, 0)) {
    for (uint32_t code = first; code <= last; ++code) {
      std::string text;
      unicode::append(text, code);
      text = table->apply(std::move(text));
      if (text.find_first_not_of(' ') != std::string::npos) return false;
    }
  }
  return true;
}

}  // namespace

const Json& part(const Json& json, const char* key) {
  static const Json null;
  if (!json.is_object()) return null;
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

std::vector<Json> normalizer_steps(const Json& shell) {
  const Json& normalizer = part(shell, "normalizer");
  if (normalizer.is_null()) return {};
  if (type_of(normalizer) != "Sequence") return {normalizer};
  std::vector<Json> steps;
  for (const Json& step : part(normalizer, "normalizers")) {
    for (Json& inner : normalizer_steps({{"normalizer", step}})) steps.push_back(std::move(inner));
  }
  return steps;
}

std::vector<float> sentence_to_gguf(const TokenizerFile& file, int64_t vocab,
                                    const std::string& where, GgufKeys& keys) {
  const auto opening = opening_of(file);
  if (!opening.has_value()) {
    throw_unsupported(cat(where,
                          ": llama.cpp knows no tokenizer with byte_fallback that normalizes and "
                          "splits as this one does (write a safetensors folder instead)"));
  }
  check_all_pairs_merge(file, where);
  keys.set("tokenizer.ggml.model", std::string("llama"));
  keys.set("tokenizer.ggml.pre", std::string("default"));
  keys.set("tokenizer.ggml.add_space_prefix", opening->space);
  return merge_scores(file, vocab);
}

bool sentence_opens_alike(const TokenizerFile& file) {
  const auto opening = opening_of(file);
  return !opening.has_value() || opening->exact;
}

std::vector<float> unigram_to_gguf(const TokenizerFile& file, int64_t vocab,
                                   const std::string& where, GgufKeys& keys) {
  const auto refuse = [&where](std::string_view reason) {
    throw_unsupported(cat(where, ": llama.cpp's Unigram tokenizer ", reason,
                          " (write a safetensors folder instead)"));
  };
  if (!part(part(file.shell, "model"), "unk_id").is_number_integer())
    refuse("needs an unknown token");
  if (flag(part(file.shell, "model"), "byte_fallback", false))
    refuse("has no byte_fallback, which this one uses");
  const auto charsmap = charsmap_of(file.shell);
  if (!charsmap.has_value())
    refuse("normalizes by a precompiled table only, which this one does not");
  bool only_spaces = false;
  if (!splits_words(part(file.shell, "pre_tokenizer"), only_spaces))
    refuse("cuts a text into words with a space in front of each, which this one does not");
  if (!only_spaces && !all_white_space_becomes_space(*charsmap, where))
    refuse("splits at spaces only, this one at all white space");
  if (has_inner_space(file)) refuse("would use tokens with a space inside, which this one cannot");
  keys.set("tokenizer.ggml.model", std::string("t5"));
  keys.set("tokenizer.ggml.pre", std::string("default"));
  keys.set("tokenizer.ggml.add_space_prefix", true);
  keys.set("tokenizer.ggml.remove_extra_whitespaces", true);
  if (!charsmap->empty()) {
    const std::string bytes = decode_base64(*charsmap, where);
    keys.set("tokenizer.ggml.precompiled_charsmap",
             GgufArray(std::vector<uint8_t>(bytes.begin(), bytes.end())));
  }
  std::vector<float> scores(static_cast<size_t>(vocab), kUnusedScore);
  bool exact = file.scores.size() <= scores.size();
  for (size_t id = 0; id < file.scores.size() && id < scores.size(); ++id) {
    scores[id] = static_cast<float>(file.scores[id]);
    exact = exact && static_cast<double>(scores[id]) == file.scores[id];
  }
  if (!exact) keys.set("slmc.tokenizer_scores", GgufArray(file.scores));
  return scores;
}

void set_unigram_rules(const GgufKeys& keys, const std::string& where, Json& shell) {
  for (const char* key : {"add_space_prefix", "remove_extra_whitespaces"}) {
    if (!keys.boolean_or(cat("tokenizer.ggml.", key), false, where))
      throw_unsupported(
          cat(where, ": a t5 tokenizer with tokenizer.ggml.", key, " false is not supported"));
  }
  if (keys.boolean_or("tokenizer.ggml.treat_whitespace_as_suffix", false, where))
    throw_unsupported(cat(where, ": a t5 tokenizer with its spaces behind words is not supported"));
  if (keys.has("tokenizer.ggml.precompiled_charsmap")) {
    std::string bytes;
    for (const int64_t byte : keys.integers("tokenizer.ggml.precompiled_charsmap", where))
      bytes.push_back(static_cast<char>(byte));
    shell["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(bytes)}};
  }
  const Json split = {{"type", "Split"},
                      {"pattern", {{"String", " "}}},
                      {"behavior", "Removed"},
                      {"invert", false}};
  const Json words = {{"type", "Metaspace"},
                      {"replacement", kSpace},
                      {"prepend_scheme", "always"},
                      {"split", true}};
  shell["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array({split, words})}};
  shell["decoder"] = words;
  shell["model"] = {{"type", "Unigram"},
                    {"unk_id", keys.integer("tokenizer.ggml.unknown_token_id", where)},
                    {"byte_fallback", false}};
}

}  // namespace slmc::tokenization
