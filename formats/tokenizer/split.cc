// Pre-tokenizers: a text into the pieces that the model sees one by one.
#include <algorithm>
#include <utility>

#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/patterns.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior read_behavior(const Fields& fields) {
  const std::string name = fields.string("behavior");
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  throw_bad_input(
      cat(fields.where(), ": behavior '", name,
          "' must be Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous"));
}

/// Turns stretches into pieces, where `base` is the start of the text that they are of.
void join_stretches(std::vector<Match>& stretches, Behavior behavior, size_t base,
                    std::vector<Pieces::Range>& out) {
  const size_t first = out.size();
  bool previous = false;
  if (behavior == Behavior::kMergedWithNext) std::reverse(stretches.begin(), stretches.end());
  for (const Match& s : stretches) {
    const Pieces::Range range{base + s.begin, base + s.end};
    const bool any = out.size() > first;
    switch (behavior) {
      case Behavior::kIsolated:
        out.push_back(range);
        break;
      case Behavior::kRemoved:
        if (!s.matched) out.push_back(range);
        break;
      case Behavior::kContiguous:
        if (s.matched == previous && any)
          out.back().end = range.end;
        else
          out.push_back(range);
        break;
      case Behavior::kMergedWithPrevious:
        if (s.matched && !previous && any)
          out.back().end = range.end;
        else
          out.push_back(range);
        break;
      case Behavior::kMergedWithNext:
        if (s.matched && !previous && any)
          out.back().begin = range.begin;
        else
          out.push_back(range);
        break;
    }
    previous = s.matched;
  }
  if (behavior == Behavior::kMergedWithNext)
    std::reverse(out.begin() + static_cast<ptrdiff_t>(first), out.end());
}

class Split : public PreTokenizer {
 public:
  Split(std::unique_ptr<Matcher> matcher, Behavior behavior, bool invert)
      : matcher_(std::move(matcher)), behavior_(behavior), invert_(invert) {}

  void apply(Pieces& pieces) const override {
    std::vector<Pieces::Range> out;
    out.reserve(pieces.text.size() / 4 + 4);
    std::vector<Match> stretches;
    for (const Pieces::Range& range : pieces.ranges) {
      stretches.clear();
      matcher_->find(std::string_view(pieces.text).substr(range.begin, range.end - range.begin),
                     stretches);
      if (invert_) {
        for (Match& s : stretches) s.matched = !s.matched;
      }
      join_stretches(stretches, behavior_, range.begin, out);
    }
    pieces.ranges = std::move(out);
  }

 private:
  std::unique_ptr<Matcher> matcher_;
  Behavior behavior_;
  bool invert_;
};

/// Rewrites every piece by `rewrite(piece, opens)`.
template <typename Rewrite>
void rewrite_pieces(Pieces& pieces, const Rewrite& rewrite) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 8);
  for (Pieces::Range& range : pieces.ranges) {
    const size_t begin = text.size();
    text += rewrite(std::string_view(pieces.text).substr(range.begin, range.end - range.begin),
                    pieces.opens_text && range.begin == 0);
    range = {begin, text.size()};
  }
  pieces.text = std::move(text);
}

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex, const std::string& where)
      : add_prefix_space_(add_prefix_space) {
    if (use_regex) {
      split_ = std::make_unique<Split>(
          make_regex_matcher(std::string(known_pattern("gpt-2")->regex), where),
          Behavior::kIsolated, false);
    }
  }

  void apply(Pieces& pieces) const override {
    if (add_prefix_space_) {
      rewrite_pieces(pieces, [](std::string_view piece, bool) {
        return (piece.empty() || piece.front() != ' ' ? " " : "") + std::string(piece);
      });
    }
    if (split_ != nullptr) split_->apply(pieces);
    pieces.bytes = true;
  }

 private:
  bool add_prefix_space_;
  std::unique_ptr<Split> split_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> parts) : parts_(std::move(parts)) {}
  void apply(Pieces& pieces) const override {
    for (const auto& part : parts_) {
      if (std::exchange(pieces.bytes, false)) {  // Another stage looks at the mapped characters.
        rewrite_pieces(pieces, [](std::string_view piece, bool) { return map_bytes(piece); });
      }
      part->apply(pieces);
    }
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

class Metaspace : public PreTokenizer {
 public:
  Metaspace(const Fields& fields) : replacement_(fields.string_or("replacement", "\xe2\x96\x81")) {
    const bool prefix = fields.boolean_or("add_prefix_space", true);
    scheme_ = fields.string_or("prepend_scheme", prefix ? "always" : "never");
    if (scheme_ != "always" && scheme_ != "first" && scheme_ != "never") {
      throw_bad_input(
          cat(fields.where(), ": prepend_scheme '", scheme_, "' must be always, first or never"));
    }
    if (fields.boolean_or("split", true)) {
      split_ = std::make_unique<Split>(make_text_matcher(replacement_), Behavior::kMergedWithNext,
                                       false);
    }
  }

  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, [&](std::string_view piece, bool opens) {
      std::string out;
      for (const char c : piece) {
        if (c == ' ')
          out += replacement_;
        else
          out += c;
      }
      const bool wanted = scheme_ == "always" || (scheme_ == "first" && opens);
      return wanted && !out.starts_with(replacement_) ? replacement_ + out : out;
    });
    if (split_ != nullptr) split_->apply(pieces);
  }

 private:
  std::string replacement_, scheme_;
  std::unique_ptr<Split> split_;
};

bool is_number(uint32_t code) {
  return unicode::in_categories(unicode::properties(code), unicode::kNumbers);
}
bool is_white_space(uint32_t code) { return unicode::is_space(unicode::properties(code)); }
bool is_punctuation(uint32_t code) { return unicode::legacy(code) & unicode::kOldPunctuation; }

/// \w+|[^\w\s]+ of Rust's regular expressions: runs of word characters, runs of the others that are
/// not space.
class WordMatcher : public Matcher {
 public:
  void find(std::string_view text, std::vector<Match>& out) const override {
    const auto kind = [](uint32_t code) {
      const uint8_t property = unicode::properties(code);
      return unicode::is_word(property) ? 1 : unicode::is_space(property) ? 0 : 2;
    };
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      const int first = kind(unicode::next(text, at));
      for (size_t ahead = at; ahead < text.size() && kind(unicode::next(text, ahead)) == first;)
        at = ahead;
      out.push_back({begin, at, first != 0});
    }
  }
};

std::unique_ptr<PreTokenizer> split_characters(bool (*wanted)(uint32_t), Behavior behavior) {
  return std::make_unique<Split>(make_character_matcher(wanted), behavior, false);
}

std::unique_ptr<PreTokenizer> make_split(const Fields& fields) {
  const Fields pattern(fields.at("pattern"), fields.where() + ".pattern");
  auto matcher = pattern.find("Regex") != nullptr
                     ? make_regex_matcher(pattern.string("Regex"), fields.where())
                     : make_text_matcher(pattern.string("String"));
  return std::make_unique<Split>(std::move(matcher), read_behavior(fields),
                                 fields.boolean_or("invert", false));
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& json, const std::string& where) {
  if (json.is_null()) return nullptr;
  const Fields fields(json, where);
  const std::string type = fields.string("type");
  if (type == "Sequence") {
    std::vector<std::unique_ptr<PreTokenizer>> parts;
    for (const Json& part : fields.array("pretokenizers")) {
      if (auto made = make_pre_tokenizer(part, where)) parts.push_back(std::move(made));
    }
    return std::make_unique<Sequence>(std::move(parts));
  }
  if (type == "ByteLevel") {
    return std::make_unique<ByteLevel>(fields.boolean_or("add_prefix_space", true),
                                       fields.boolean_or("use_regex", true), where);
  }
  if (type == "Split") return make_split(fields);
  if (type == "Metaspace") return std::make_unique<Metaspace>(fields);
  if (type == "Digits") {
    return split_characters(is_number, fields.boolean_or("individual_digits", false)
                                           ? Behavior::kIsolated
                                           : Behavior::kContiguous);
  }
  if (type == "Punctuation") {
    return split_characters(is_punctuation, fields.find("behavior") != nullptr
                                                ? read_behavior(fields)
                                                : Behavior::kIsolated);
  }
  if (type == "WhitespaceSplit") return split_characters(is_white_space, Behavior::kRemoved);
  if (type == "BertPreTokenizer") {
    std::vector<std::unique_ptr<PreTokenizer>> parts;
    parts.push_back(split_characters(is_white_space, Behavior::kRemoved));
    parts.push_back(split_characters(is_punctuation, Behavior::kIsolated));
    return std::make_unique<Sequence>(std::move(parts));
  }
  if (type == "Whitespace")
    return std::make_unique<Split>(std::make_unique<WordMatcher>(), Behavior::kRemoved, true);
  if (type == "CharDelimiterSplit") {
    return std::make_unique<Split>(make_text_matcher(fields.string("delimiter")),
                                   Behavior::kRemoved, false);
  }
  throw_unsupported(cat(where, ": pre-tokenizer ", type, " is not supported"));
}

}  // namespace slmc::tokenization
