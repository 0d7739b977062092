// The tokenizer as a whole: added tokens are cut out of the text, the rest is normalized, split and
// handed to the model piece by piece, and the post-processor's ids go around the result. Order and
// details follow Hugging Face `tokenizers`, which is the oracle.
#include "formats/tokenizer/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "formats/hub_cache.h"
#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/json.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/unicode.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using namespace tokenization;

/// A component of the shell; null if absent.
const Json& component(const Json& shell, const char* key) {
  static const Json null;
  const auto found = shell.find(key);
  return found == shell.end() ? null : *found;
}

/// Of vocabulary, merges and rules. Keys are sorted and what does not change ids or text is left
/// out.
std::string hash_of(const TokenizerFile& file) {
  Hasher hasher;
  nlohmann::json rules = nlohmann::json::parse(file.shell.dump());
  for (const char* key : {"version", "truncation", "padding"}) rules.erase(key);
  const std::string rules_text = rules.dump();
  hasher.add(rules_text.data(), rules_text.size());
  for (int32_t id = 0; id < file.vocabulary.size(); ++id) {
    if (!file.vocabulary.has(id)) continue;
    const std::string_view text = file.vocabulary.text(id);
    const int64_t head[2] = {id, static_cast<int64_t>(text.size())};
    hasher.add(head, sizeof head);
    hasher.add(text.data(), text.size());
  }
  hasher.add(file.merge_text.data(), file.merge_text.size());
  for (const auto& place : file.merge_places) hasher.add(&place, sizeof place);
  hasher.add(file.scores.data(), file.scores.size() * sizeof(double));
  return hasher.digest();
}

class Interpreter : public Tokenizer {
 public:
  Interpreter(TokenizerFile file, const Json& config, const std::string& where,
              const Architecture* arch = nullptr)
      : decoder_(component(file.shell, "decoder"), cat(where, ": decoder")) {
    const Json& shell = file.shell;
    hash_ = hash_of(file);
    model_ = make_token_model(file, where);
    normalizer_ = make_normalizer(component(shell, "normalizer"), cat(where, ": normalizer"));
    pre_tokenizer_ =
        make_pre_tokenizer(component(shell, "pre_tokenizer"), cat(where, ": pre_tokenizer"));
    read_added(component(shell, "added_tokens"), where);
    const auto find = [this](const std::string& text) { return token_id(text); };
    template_ =
        make_template(component(shell, "post_processor"), find, cat(where, ": post_processor"));
    bos_ = configured(config, "bos_token", where);
    eos_ = configured(config, "eos_token", where);
    before_ = around(true);
    after_ = around(false);
    if (bos_ < 0 && !configured_as_null(config, "bos_token") && !before_.empty())
      bos_ = before_.front();
    if (eos_ < 0 && !configured_as_null(config, "eos_token") && !after_.empty())
      eos_ = after_.back();
    if (arch != nullptr) take_ids_of(*arch, config);
  }

  std::vector<int32_t> encode(std::string_view text, bool special) const override {
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 3 + 4);
    if (special) ids = before_;
    encode_plain(text, ids);
    if (special) ids.insert(ids.end(), after_.begin(), after_.end());
    return ids;
  }

  Encoding encode_pair(std::string_view first, std::string_view second,
                       bool special) const override {
    std::vector<int32_t> texts[2];
    encode_plain(first, texts[0]);
    encode_plain(second, texts[1]);
    return assembled(special ? template_.pair : Template().pair, texts);
  }

  Encoding assemble(std::span<const std::vector<int32_t>> texts) const override {
    SLMC_CHECK(texts.size() == 1 || texts.size() == 2, "one text or two");
    return assembled(texts.size() == 1 ? template_.single : template_.pair, texts);
  }

  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    return decode_part(ids, true, skip_special);
  }

  std::string decode_part(std::span<const int32_t> ids, bool first,
                          bool skip_special) const override {
    return decoder_.decode_part(texts(ids, skip_special), first);
  }

  bool certain(std::span<const int32_t> ids) const override {
    return decoder_.certain(texts(ids, false));
  }

  std::string token_bytes(int32_t id) const override { return decoder_.bytes(decoded_text(id)); }

  std::string token_text(int32_t id) const override {
    const auto found = added_.find(id);
    return found != added_.end() ? found->second.content
                                 : std::string(model_->vocabulary().text(id));
  }

  int32_t token_id(std::string_view text) const override {
    const auto found = added_ids_.find(std::string(text));
    return found != added_ids_.end() ? found->second : model_->vocabulary().find(text);
  }

  int32_t vocab_size() const override { return size_; }
  bool is_special(int32_t id) const override {
    const auto found = added_.find(id);
    return found != added_.end() && found->second.special;
  }
  bool is_skipped(int32_t id) const override {
    const auto found = added_ids_.find(decoded_text(id));
    return found != added_ids_.end() && is_special(found->second);
  }
  int32_t bos() const override { return bos_; }
  int32_t eos() const override { return eos_; }
  bool adds_bos() const override {
    return bos_ >= 0 && !before_.empty() && before_.front() == bos_;
  }
  bool adds_eos() const override { return eos_ >= 0 && !after_.empty() && after_.back() == eos_; }
  const std::string& hash() const override { return hash_; }

 private:
  static Encoding assembled(const std::vector<Template::Part>& parts,
                            std::span<const std::vector<int32_t>> texts) {
    Encoding out;
    for (const Template::Part& part : parts) {
      const auto& ids = part.text >= 0 ? texts[static_cast<size_t>(part.text)] : part.ids;
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
      out.types.resize(out.ids.size(), part.type);
    }
    return out;
  }

  /// The model's ids where the tokenizer's own files are silent (GPT-2's).
  void take_ids_of(const Architecture& arch, const Json& config) {
    const auto take = [&](int64_t id, const char* key, int32_t& to) {
      if (to >= 0 || configured_as_null(config, key) || id < 0 || id >= size_) return;
      if (!token_text(static_cast<int32_t>(id)).empty()) to = static_cast<int32_t>(id);
    };
    take(arch.bos, "bos_token", bos_);
    take(arch.eos, "eos_token", eos_);
  }

  void read_added(const Json& json, const std::string& where) {
    std::vector<AddedToken> raw, normalized;
    std::vector<std::string> raw_texts, normalized_texts;
    size_ = model_->vocabulary().size();
    for (AddedToken& token : read_added_tokens(json, model_->vocabulary(), where)) {
      size_ = std::max(size_, token.id + 1);
      added_[token.id] = token;
      added_ids_[token.content] = token.id;
      if (token.normalized) {
        normalized_texts.push_back(normalizer_ != nullptr ? normalizer_->apply(token.content)
                                                          : token.content);
        if (normalized_texts.back() != token.content)
          decoded_as_[token.id] = normalized_texts.back();
        normalized.push_back(std::move(token));
      } else {
        raw_texts.push_back(token.content);
        raw.push_back(std::move(token));
      }
    }
    raw_finder_ = std::make_unique<AddedTokenFinder>(raw, raw_texts);
    normalized_finder_ = std::make_unique<AddedTokenFinder>(normalized, normalized_texts);
  }

  static const Json* config_value(const Json& config, const char* key) {
    if (!config.is_object()) return nullptr;
    const auto found = config.find(key);
    return found == config.end() ? nullptr : &*found;
  }
  static bool configured_as_null(const Json& config, const char* key) {
    const Json* value = config_value(config, key);
    return value != nullptr && value->is_null();
  }
  /// The id of a token that tokenizer_config.json names, as text or as an object with `content`; -1
  /// if it names none.
  int32_t configured(const Json& config, const char* key, const std::string& where) const {
    const Json* value = config_value(config, key);
    if (value == nullptr || value->is_null()) return -1;
    if (value->is_object()) {
      const auto content = value->find("content");
      if (content == value->end())
        throw_bad_input(cat(where, ": ", key, " of tokenizer_config.json has no content"));
      value = &*content;
    }
    if (!value->is_string())
      throw_bad_input(cat(where, ": ", key, " of tokenizer_config.json must be a string, found ",
                          value->type_name()));
    return token_id(value->get<std::string>());
  }

  /// What the template puts before, or after, a single text.
  std::vector<int32_t> around(bool before) const {
    std::vector<int32_t> ids;
    bool seen = false;
    for (const Template::Part& part : template_.single) {
      if (part.text >= 0)
        seen = true;
      else if (seen != before)
        ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    }
    return ids;
  }

  /// Any text, without what the post-processor adds.
  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
    std::string repaired;
    if (!unicode::is_valid(text)) text = repaired = unicode::replace_invalid(text);
    std::vector<AddedTokenFinder::Part> parts;
    raw_finder_->split(text, parts);
    for (const auto& part : parts) {
      if (part.id >= 0)
        ids.push_back(part.id);
      else
        encode_text(text.substr(part.begin, part.end - part.begin), part.begin == 0, ids);
    }
  }

  /// A stretch without (raw) added tokens.
  void encode_text(std::string_view text, bool opens, std::vector<int32_t>& ids) const {
    std::string normalized(text);
    if (normalizer_ != nullptr) normalized = normalizer_->apply(std::move(normalized));
    std::vector<AddedTokenFinder::Part> parts;
    normalized_finder_->split(normalized, parts);
    for (const auto& part : parts) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      Pieces pieces;
      pieces.text = parts.size() == 1 ? std::move(normalized)
                                      : normalized.substr(part.begin, part.end - part.begin);
      pieces.ranges.push_back({0, pieces.text.size()});
      pieces.opens_text = opens && part.begin == 0;
      if (pre_tokenizer_ != nullptr) pre_tokenizer_->apply(pieces);
      for (const Pieces::Range& range : pieces.ranges) {
        if (range.begin == range.end) continue;
        const std::string_view piece =
            std::string_view(pieces.text).substr(range.begin, range.end - range.begin);
        if (pieces.bytes)
          model_->encode_bytes(piece, ids);
        else
          model_->encode(piece, ids);
      }
    }
  }

  /// What the decoder is given for an id: normalized added tokens count as what they look like in
  /// normalized text.
  std::string decoded_text(int32_t id) const {
    const auto found = decoded_as_.find(id);
    return found != decoded_as_.end() ? found->second : token_text(id);
  }

  std::vector<std::string> texts(std::span<const int32_t> ids, bool skip_special) const {
    std::vector<std::string> out;
    out.reserve(ids.size());
    for (const int32_t id : ids) {
      if (skip_special && is_skipped(id)) continue;
      if (added_.count(id) > 0 || model_->vocabulary().has(id)) out.push_back(decoded_text(id));
    }
    return out;
  }

  std::unique_ptr<TokenModel> model_;
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  DecoderChain decoder_;
  Template template_;
  std::vector<int32_t> before_, after_;
  std::unordered_map<int32_t, AddedToken> added_;
  std::unordered_map<std::string, int32_t> added_ids_;
  std::unordered_map<int32_t, std::string> decoded_as_;
  std::unique_ptr<AddedTokenFinder> raw_finder_, normalized_finder_;
  int32_t bos_ = -1, eos_ = -1, size_ = 0;
  std::string hash_;
};

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json,
                                                      const Json& tokenizer_config,
                                                      const std::string& where) {
  return std::make_shared<Interpreter>(parse_tokenizer_json(tokenizer_json, where),
                                       tokenizer_config, where);
}

std::shared_ptr<const Tokenizer> Tokenizer::from_assets(const Assets& assets,
                                                        const std::string& where,
                                                        const Architecture* arch) {
  if (assets.tokenizer_json.empty()) {
    throw_bad_input(
        cat(where, ": there is no tokenizer (tokenizer.json, or the tokenizer keys of a GGUF)"));
  }
  Json config = Json::object();
  if (!assets.tokenizer_config_json.empty())
    config = parse_json(assets.tokenizer_config_json, cat(where, ": tokenizer_config.json"));
  if (!assets.special_tokens_map_json.empty() && config.is_object()) {
    const Json map =
        parse_json(assets.special_tokens_map_json, cat(where, ": special_tokens_map.json"));
    for (const char* key : {"bos_token", "eos_token"}) {
      if (map.is_object() && map.contains(key) && !config.contains(key)) config[key] = map[key];
    }
  }
  return std::make_shared<Interpreter>(parse_tokenizer_json(assets.tokenizer_json, where), config,
                                       where, arch);
}

Assets tokenizer_assets(const std::string& asked) {
  const std::string path = resolve_model_path(asked);
  if (!fs::is_directory(path)) return tokenizer_from_gguf(GgufFile::open(path).keys, path);
  const fs::path folder(path);
  if (!fs::exists(folder / "tokenizer.json"))
    throw_bad_input(cat(path, ": the folder has no tokenizer.json"));
  return read_folder_assets(path);
}

std::shared_ptr<const Tokenizer> Tokenizer::open(const std::string& asked) {
  const std::string path = resolve_model_path(asked);
  return from_assets(tokenizer_assets(path),
                     fs::is_directory(path) ? path + "/tokenizer.json" : path);
}

std::string StreamDecoder::add(int32_t id) {
  // What is left out counts for nothing: not as the beginning, not as the end of a run of bytes.
  if ((skip_special_ && tokenizer_.is_skipped(id)) || tokenizer_.token_text(id).empty()) return "";
  ids_.push_back(id);
  if (!tokenizer_.certain(ids_)) return "";
  return finish();
}

std::string StreamDecoder::finish() {
  if (ids_.empty()) return "";
  std::string text = tokenizer_.decode_part(ids_, first_, skip_special_);
  ids_.clear();
  first_ = false;
  return text;
}

}  // namespace slmc
