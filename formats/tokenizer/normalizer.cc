// Normalizers: text to text, before splitting.
#include <algorithm>
#include <iterator>
#include <utility>

#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/patterns.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

constexpr size_t kMostGrowth =
    64u << 20;  // Bytes; chained replacements of a hostile file could fill memory.

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  std::string apply(std::string text) const override {
    for (const auto& part : parts_) text = part->apply(std::move(text));
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

/// A normalizer that is one function.
class Simple : public Normalizer {
 public:
  explicit Simple(std::string (*function)(std::string_view)) : function_(function) {}
  std::string apply(std::string text) const override { return function_(text); }

 private:
  std::string (*function_)(std::string_view);
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string text) const override {
    return text.empty() ? text : prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(const Fields& fields) : content_(fields.string("content")) {
    const Fields pattern(fields.at("pattern"), fields.where() + ".pattern");
    matcher_ = pattern.find("Regex") != nullptr
                   ? make_regex_matcher(pattern.string("Regex"), fields.where())
                   : make_text_matcher(pattern.string("String"));
  }
  std::string apply(std::string text) const override {
    std::vector<Match> matches;
    matcher_->find(text, matches);
    std::string out;
    out.reserve(text.size() + matches.size());
    for (const Match& m : matches) {
      if (m.matched)
        out += content_;
      else
        out.append(text, m.begin, m.end - m.begin);
      if (out.size() > kMostGrowth + 16 * text.size())
        throw_unsupported("a Replace normalizer makes texts too much longer");
    }
    return out;
  }

 private:
  std::string content_;
  std::unique_ptr<Matcher> matcher_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  std::string apply(std::string text) const override {
    const auto space = [&](size_t at) {
      return unicode::is_space(unicode::properties(unicode::next(text, at)));
    };
    size_t begin = 0, end = text.size();
    while (left_ && begin < end && space(begin)) unicode::next(text, begin);
    while (right_ && end > begin && space(unicode::previous(text, end)))
      end = unicode::previous(text, end);
    return text.substr(begin, end - begin);
  }

 private:
  bool left_, right_;
};

/// `text` without the characters that have one of `bits` (unicode::Legacy).
std::string without(std::string_view text, uint8_t bits) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (!(unicode::legacy(unicode::next(text, at)) & bits)) out.append(text, start, at - start);
  }
  return out;
}

std::string strip_accents(std::string_view text) { return without(text, unicode::kCombiningMark); }

bool is_chinese(uint32_t code) {
  constexpr uint32_t kRanges[][2] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},
                                     {0x20000, 0x2a6df}, {0x2a700, 0x2b81f}, {0x2b920, 0x2ceaf},
                                     {0x2f800, 0x2fa1f}};
  return code >= 0x3400 && std::any_of(std::begin(kRanges), std::end(kRanges),
                                       [&](const auto& r) { return code >= r[0] && code <= r[1]; });
}

/// What BERT's own tokenizer did to texts, each step if wanted.
class Bert : public Normalizer {
 public:
  explicit Bert(const Fields& fields)
      : clean_(fields.boolean_or("clean_text", true)),
        chinese_(fields.boolean_or("handle_chinese_chars", true)),
        lower_(fields.boolean_or("lowercase", true)),
        accents_(fields.boolean_or("strip_accents", lower_)) {}
  std::string apply(std::string text) const override {
    if (clean_) text = cleaned(text);
    if (chinese_) text = spaced(text);
    if (accents_) text = without(unicode::decomposed(text, false), unicode::kNonspacingMark);
    return lower_ ? unicode::lower_case(text) : text;
  }

 private:
  static std::string cleaned(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const size_t start = at;
      const uint32_t code = unicode::next(text, at);
      if (unicode::legacy(code) & unicode::kRemovedControl) continue;
      if (unicode::is_space(unicode::properties(code)))
        out += ' ';
      else
        out.append(text, start, at - start);
    }
    return out;
  }
  /// Chinese characters are words of their own.
  static std::string spaced(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const size_t start = at;
      const bool chinese = is_chinese(unicode::next(text, at));
      if (chinese) out += ' ';
      out.append(text, start, at - start);
      if (chinese) out += ' ';
    }
    return out;
  }
  bool clean_, chinese_, lower_, accents_;
};

/// The rules of SentencePiece's "nmt" normalization.
std::string nmt(std::string_view text) {
  const auto removed = [](uint32_t c) {
    return (c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f ||
           c == 0x9f;
  };
  const auto space = [](uint32_t c) {
    return c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 ||
           (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xfeff || c == 0xfffd;
  };
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const uint32_t code = unicode::next(text, at);
    if (removed(code)) continue;
    if (space(code))
      out += ' ';
    else
      out.append(text, start, at - start);
  }
  return out;
}

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const Json& json, const std::string& where) {
  if (json.is_null()) return nullptr;
  const Fields fields(json, where);
  const std::string type = fields.string("type");
  const auto simple = [](std::string (*function)(std::string_view)) {
    return std::make_unique<Simple>(function);
  };
  if (type == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> parts;
    for (const Json& part : fields.array("normalizers")) {
      if (auto made = make_normalizer(part, where)) parts.push_back(std::move(made));
    }
    return std::make_unique<Sequence>(std::move(parts));
  }
  if (type == "NFC") return simple([](std::string_view t) { return unicode::composed(t, false); });
  if (type == "NFD")
    return simple([](std::string_view t) { return unicode::decomposed(t, false); });
  if (type == "NFKC") return simple([](std::string_view t) { return unicode::composed(t, true); });
  if (type == "NFKD")
    return simple([](std::string_view t) { return unicode::decomposed(t, true); });
  if (type == "Lowercase") return simple(unicode::lower_case);
  if (type == "StripAccents") return simple(strip_accents);
  if (type == "Strip")
    return std::make_unique<Strip>(fields.boolean_or("strip_left", true),
                                   fields.boolean_or("strip_right", true));
  if (type == "Prepend") return std::make_unique<Prepend>(fields.string("prepend"));
  if (type == "Replace") return std::make_unique<Replace>(fields);
  if (type == "BertNormalizer") return std::make_unique<Bert>(fields);
  if (type == "Nmt") return simple(nmt);
  if (type == "ByteLevel") return simple(map_bytes);
  if (type == "Precompiled") return make_precompiled(fields.string("precompiled_charsmap"), where);
  throw_unsupported(cat(where, ": normalizer ", type, " is not supported"));
}

}  // namespace slmc::tokenization
