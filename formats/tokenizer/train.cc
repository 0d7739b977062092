// Training of byte-level BPE. Words are counted once; then the most frequent pair of neighbours
// becomes a token again and again, where only the words that hold the pair are touched. Ties go to
// the pair with the lower ids, as in Hugging Face's trainer.
#include "formats/tokenizer/train.h"

#include <algorithm>
#include <queue>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/json.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/patterns.h"
#include "formats/tokenizer/unicode.h"

namespace slmc {
namespace {

using namespace tokenization;

/// Distinct words as byte strings with their counts, in order of first appearance.
class WordCounter {
 public:
  WordCounter(const Matcher& matcher, const Normalizer* normalizer,
              const std::vector<std::string>& specials)
      : matcher_(matcher), normalizer_(normalizer), finder_(tokens(specials), specials) {}

  void add(std::string_view document) {
    std::string repaired;
    if (!unicode::is_valid(document)) document = repaired = unicode::replace_invalid(document);
    std::vector<AddedTokenFinder::Part> parts;
    finder_.split(document, parts);  // Special tokens in the text teach nothing.
    std::vector<Match> matches;
    for (const auto& part : parts) {
      if (part.id >= 0) continue;
      std::string text(document.substr(part.begin, part.end - part.begin));
      if (normalizer_ != nullptr) text = normalizer_->apply(std::move(text));
      matches.clear();
      matcher_.find(text, matches);
      for (const Match& m : matches) count(std::string_view(text).substr(m.begin, m.end - m.begin));
    }
  }
  const std::vector<std::string>& words() const { return words_; }
  const std::vector<int64_t>& counts() const { return counts_; }

 private:
  static std::vector<AddedToken> tokens(const std::vector<std::string>& specials) {
    std::vector<AddedToken> out;
    for (const std::string& special : specials) {
      AddedToken token;
      token.id = static_cast<int32_t>(out.size());
      token.content = special;
      out.push_back(std::move(token));
    }
    return out;
  }
  void count(std::string_view word) {
    key_.assign(word);
    const auto [place, fresh] = index_.try_emplace(key_, words_.size());
    if (fresh) {
      words_.push_back(key_);
      counts_.push_back(0);
    }
    ++counts_[place->second];
  }

  const Matcher& matcher_;
  const Normalizer* normalizer_;
  AddedTokenFinder finder_;
  std::unordered_map<std::string, size_t> index_;
  std::string key_;
  std::vector<std::string> words_;
  std::vector<int64_t> counts_;
};

/// The pairs of all words and the loop that merges them.
class PairMerger {
 public:
  PairMerger(const std::vector<std::string>& words, std::vector<int64_t> counts,
             int32_t first_byte_id)
      : counts_(std::move(counts)) {
    std::vector<int32_t> ids(256);  // Bytes have ids in order of their characters.
    std::vector<std::pair<uint32_t, unsigned>> order;
    for (unsigned byte = 0; byte < 256; ++byte)
      order.emplace_back(byte_to_character(static_cast<unsigned char>(byte)), byte);
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < 256; ++i) ids[order[i].second] = first_byte_id + static_cast<int32_t>(i);
    words_.reserve(words.size());
    for (const std::string& word : words) {
      std::vector<int32_t> symbols;
      for (const char c : word) symbols.push_back(ids[static_cast<unsigned char>(c)]);
      words_.push_back(std::move(symbols));
    }
    for (uint32_t w = 0; w < words_.size(); ++w) {
      for (size_t i = 0; i + 1 < words_[w].size(); ++i)
        change({words_[w][i], words_[w][i + 1]}, counts_[w], w);
    }
    for (const auto& [key, pair] : pairs_) queue_.push({pair.count, key});
    touched_.clear();
  }

  struct Pair {
    int32_t left, right;
  };
  /// Merges the next pair into the token `name_result(pair)`. False when no pair is frequent
  /// enough.
  template <typename NameResult>
  bool merge_next(int64_t min_frequency, const NameResult& name_result) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      PairState& state = pairs_[top.key];
      if (state.count != top.count) {  // Went down since; its turn comes later.
        if (state.count > 0) queue_.push({state.count, top.key});
        continue;
      }
      if (top.count < std::max<int64_t>(min_frequency, 1)) break;
      const Pair pair{static_cast<int32_t>(top.key >> 32),
                      static_cast<int32_t>(top.key & 0xffffffffu)};
      std::vector<uint32_t> where = std::move(state.words);
      state.words.clear();
      apply(pair, name_result(pair), where);
      pairs_[top.key].count = 0;
      return true;
    }
    return false;
  }

 private:
  struct PairState {
    int64_t count = 0;
    std::vector<uint32_t> words;  // Those that may hold the pair.
  };
  struct Candidate {
    int64_t count;
    uint64_t key;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };

  void change(Pair pair, int64_t amount, uint32_t word) {
    const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(pair.left)) << 32 |
                         static_cast<uint32_t>(pair.right);
    PairState& state = pairs_[key];
    state.count += amount;
    if (amount <= 0) return;
    if (state.words.empty() || state.words.back() != word) state.words.push_back(word);
    touched_.push_back(key);
  }

  void apply(Pair pair, int32_t result, std::vector<uint32_t>& where) {
    std::sort(where.begin(), where.end());
    where.erase(std::unique(where.begin(), where.end()), where.end());
    touched_.clear();
    for (const uint32_t w : where) merge_in(w, pair, result);
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    for (const uint64_t key : touched_) {
      const int64_t count = pairs_[key].count;
      if (count > 0) queue_.push({count, key});
    }
  }

  /// Merges every occurrence in one word, left to right, and keeps the counts of the pairs around
  /// them.
  void merge_in(uint32_t w, Pair pair, int32_t result) {
    std::vector<int32_t>& symbols = words_[w];
    const int64_t count = counts_[w];
    size_t to = 0;
    for (size_t from = 0; from < symbols.size(); ++to) {
      if (from + 1 >= symbols.size() || symbols[from] != pair.left ||
          symbols[from + 1] != pair.right) {
        symbols[to] = symbols[from++];
        continue;
      }
      if (to > 0) {
        change({symbols[to - 1], pair.left}, -count, w);
        change({symbols[to - 1], result}, count, w);
      }
      from += 2;
      if (from < symbols.size()) {
        change({pair.right, symbols[from]}, -count, w);
        change({result, symbols[from]}, count, w);
      }
      symbols[to] = result;
    }
    symbols.resize(to);
  }

  std::vector<int64_t> counts_;
  std::vector<std::vector<int32_t>> words_;
  std::unordered_map<uint64_t, PairState> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<uint64_t> touched_;
};

/// tokenizer.json without vocabulary and merges.
Json make_shell(const BpeTrainingOptions& options, const KnownPattern& pattern) {
  const auto byte_level = [](bool use_regex) -> Json {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", use_regex}};
  };
  Json added = Json::array();
  for (size_t i = 0; i < options.special_tokens.size(); ++i) {
    added.push_back({{"id", i},
                     {"content", options.special_tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  Json pre = byte_level(true);
  if (pattern.name != "gpt-2") {
    const Json split = {{"type", "Split"},
                        {"pattern", {{"Regex", std::string(pattern.regex)}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
    pre = {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(false)})}};
  }
  Json single = Json::array(), specials = Json::object();
  if (options.add_bos && !options.special_tokens.empty()) {
    const std::string& bos = options.special_tokens.front();
    single.push_back({{"SpecialToken", {{"id", bos}, {"type_id", 0}}}});
    specials[bos] = {{"id", bos}, {"ids", Json::array({0})}, {"tokens", Json::array({bos})}};
  }
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  Json shell = {
      {"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added}};
  shell["normalizer"] = pattern.name == "qwen2" ? Json{{"type", "NFC"}} : Json();
  shell["pre_tokenizer"] = pre;
  shell["post_processor"] = {{"type", "TemplateProcessing"},
                             {"single", single},
                             {"pair", pair},
                             {"special_tokens", specials}};
  shell["decoder"] = byte_level(true);
  shell["model"] = {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", nullptr},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", false},
                    {"byte_fallback", false},
                    {"ignore_merges", false}};
  return shell;
}

void check_options(const BpeTrainingOptions& options) {
  const auto least = static_cast<int64_t>(256 + options.special_tokens.size());
  if (options.vocab < least || options.vocab > 1 << 20) {
    throw_usage(cat("vocab ", options.vocab, ": expected at least ", least,
                    " (256 bytes and the special tokens) and at most ", 1 << 20));
  }
  std::vector<std::string> sorted = options.special_tokens;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    throw_usage("a special token is given twice");
  for (const std::string& token : sorted) {
    if (token.size() < 2 || !unicode::is_valid(token))
      throw_usage("a special token must have at least two characters of UTF-8");
  }
}

}  // namespace

std::string train_bpe(const std::vector<std::string>& documents,
                      const BpeTrainingOptions& options) {
  return train_bpe(documents, options, [](int64_t) {});
}

std::string train_bpe(const std::vector<std::string>& documents, const BpeTrainingOptions& options,
                      const std::function<void(int64_t)>& watch) {
  check_options(options);
  const KnownPattern* pattern = known_pattern(options.pattern);
  if (pattern == nullptr) {
    std::vector<std::string> names;
    for (const KnownPattern& known : known_patterns()) names.emplace_back(known.name);
    throw_usage(cat("pattern '", options.pattern, "' is not known; known: ", join(names, ", "),
                    did_you_mean(options.pattern, names)));
  }
  TokenizerFile file;
  file.shell = make_shell(options, *pattern);
  file.has_merges = true;
  const auto matcher = make_regex_matcher(std::string(pattern->regex), "pattern");
  const auto normalizer = make_normalizer(file.shell["normalizer"], "normalizer");
  WordCounter counter(*matcher, normalizer.get(), options.special_tokens);
  for (const std::string& document : documents) {
    counter.add(document);
    watch(0);
  }

  int32_t id = 0;
  for (const std::string& token : options.special_tokens) file.vocabulary.add(token, id++);
  PairMerger merger(counter.words(), counter.counts(), id);
  std::vector<std::string> alphabet;
  for (unsigned byte = 0; byte < 256; ++byte)
    alphabet.push_back(map_bytes(std::string(1, static_cast<char>(byte))));
  std::sort(alphabet.begin(), alphabet.end());  // UTF-8 sorts by code point.
  for (const std::string& character : alphabet) file.vocabulary.add(character, id++);
  while (id < options.vocab) {
    const bool merged = merger.merge_next(options.min_frequency, [&](PairMerger::Pair pair) {
      const std::string left(file.vocabulary.text(pair.left)),
          right(file.vocabulary.text(pair.right));
      file.add_merge(left, right);
      const int32_t known =
          file.vocabulary.find(left + right);  // Two pairs can make the same token.
      if (known >= 0) return known;
      file.vocabulary.add(left + right, id);
      return id++;
    });
    if (!merged) break;
    watch(id);
  }
  return tokenizer_json_text(file);
}

}  // namespace slmc
