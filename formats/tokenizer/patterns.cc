// The linear scanners. Each reproduces what a backtracking engine finds for one pattern,
// alternative by alternative, looking at every character a bounded number of times.
#include "formats/tokenizer/patterns.h"

#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

using unicode::in_categories;
using unicode::is_space;
using unicode::properties;

bool is_letter(uint8_t p) { return in_categories(p, unicode::kLetters); }
bool is_number(uint8_t p) { return in_categories(p, unicode::kNumbers); }
bool is_other(uint8_t p) {
  return !is_space(p) && !in_categories(p, unicode::kLetters | unicode::kNumbers);
}

/// A place in a text, with the properties of the character there.
struct Cursor {
  std::string_view text;
  size_t at;
  bool done() const { return at >= text.size(); }
  uint8_t property() const {
    size_t copy = at;
    return done() ? 0 : properties(unicode::next(text, copy));
  }
  void step() { unicode::next(text, at); }
  /// Moves over characters that satisfy `wanted`, at most `limit`.
  template <typename Wanted>
  bool run(const Wanted& wanted, size_t limit = ~size_t{0}) {
    const size_t start = at;
    for (size_t n = 0; n < limit && !done(); ++n) {
      size_t ahead = at;
      if (!wanted(properties(unicode::next(text, ahead)))) break;
      at = ahead;
    }
    return at > start;
  }
};

/// Length of 's 't 're 've 'm 'll 'd at `at`, 0 if there is none. Without case s also has the long
/// s, U+017F.
size_t contraction(std::string_view text, size_t at, bool any_case) {
  if (text[at] != '\'' || at + 1 >= text.size()) return 0;
  const auto letter = [&](size_t i) {
    const char c = i < text.size() ? text[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = letter(at + 1), second = letter(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (any_case && text.substr(at + 1, 2) == "\xc5\xbf") return 3;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l'))
    return 3;
  return 0;
}

/// \s+(?!\S)|\s+ at a white space: the whole run at the end of the text, else all but its last
/// character, which opens the next piece.
size_t space_run(std::string_view text, size_t begin, size_t end) {
  if (end == text.size()) return end;
  const size_t last = unicode::previous(text, end);
  return last > begin ? last : end;
}

/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
class Gpt2Scanner : public Matcher {
 public:
  void find(std::string_view text, std::vector<Match>& out) const override {
    for (size_t at = 0; at < text.size();) {
      const size_t end = piece(text, at);
      out.push_back({at, end, true});
      at = end;
    }
  }

 private:
  static size_t piece(std::string_view text, size_t at) {
    if (const size_t length = contraction(text, at, false); length > 0) return at + length;
    Cursor c{text, text[at] == ' ' ? at + 1 : at};
    if (c.run(is_letter) || c.run(is_number) || c.run(is_other)) return c.at;
    c.at = at;
    c.run(is_space);
    return space_run(text, at, c.at);
  }
};

/// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,D}|
/// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
class Llama3Scanner : public Matcher {
 public:
  explicit Llama3Scanner(size_t digits) : digits_(digits) {}

  void find(std::string_view text, std::vector<Match>& out) const override {
    for (size_t at = 0; at < text.size();) {
      const size_t end = piece(text, at);
      out.push_back({at, end, true});
      at = end;
    }
  }

 private:
  size_t piece(std::string_view text, size_t at) const {
    if (const size_t length = contraction(text, at, true); length > 0) return at + length;
    Cursor c{text, at};
    const uint8_t first = c.property();
    if (is_letter(first)) {
      c.run(is_letter);
      return c.at;
    }
    if (is_number(first)) {
      c.run(is_number, digits_);
      return c.at;
    }
    if (text[at] != '\r' && text[at] != '\n') {
      c.step();
      if (c.run(is_letter)) return c.at;
      c.at = text[at] == ' ' ? at + 1 : at;
      if (c.run(is_other)) {
        while (!c.done() && (text[c.at] == '\r' || text[c.at] == '\n')) ++c.at;
        return c.at;
      }
      c.at = at;
    }
    c.run(is_space);
    // \s* gives back what [\r\n]+ needs: the piece ends behind the run's last line break, if it has
    // one.
    const size_t line_break = text.substr(at, c.at - at).find_last_of("\r\n");
    return line_break != std::string_view::npos ? at + line_break + 1 : space_run(text, at, c.at);
  }

  size_t digits_;
};

class TextMatcher : public Matcher {
 public:
  explicit TextMatcher(std::string wanted) : wanted_(std::move(wanted)) {}
  void find(std::string_view text, std::vector<Match>& out) const override {
    size_t last = 0;
    for (size_t at = 0; !wanted_.empty() && (at = text.find(wanted_, at)) != std::string_view::npos;
         last = at) {
      if (at > last) out.push_back({last, at, false});
      out.push_back({at, at + wanted_.size(), true});
      at += wanted_.size();
    }
    if (last < text.size()) out.push_back({last, text.size(), false});
  }

 private:
  std::string wanted_;
};

class CharacterMatcher : public Matcher {
 public:
  explicit CharacterMatcher(bool (*wanted)(uint32_t)) : wanted_(wanted) {}
  void find(std::string_view text, std::vector<Match>& out) const override {
    size_t last = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t start = at;
      if (!wanted_(unicode::next(text, at))) continue;
      if (start > last) out.push_back({last, start, false});
      out.push_back({start, at, true});
      last = at;
    }
    if (last < text.size()) out.push_back({last, text.size(), false});
  }

 private:
  bool (*wanted_)(uint32_t);
};

}  // namespace

const std::vector<KnownPattern>& known_patterns() {
  static const std::vector<KnownPattern> patterns = {
      {"gpt-2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
      {"llama-bpe",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      {"qwen2",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
  };
  return patterns;
}

const KnownPattern* known_pattern(std::string_view name) {
  for (const KnownPattern& pattern : known_patterns()) {
    if (pattern.name == name) return &pattern;
  }
  return nullptr;
}

std::unique_ptr<Matcher> make_regex_matcher(const std::string& regex, const std::string& where) {
  if (regex == known_pattern("gpt-2")->regex) return std::make_unique<Gpt2Scanner>();
  if (regex == known_pattern("llama-bpe")->regex) return std::make_unique<Llama3Scanner>(3);
  if (regex == known_pattern("qwen2")->regex) return std::make_unique<Llama3Scanner>(1);
  return make_pcre_matcher(regex, where);
}

std::unique_ptr<Matcher> make_text_matcher(const std::string& text) {
  return std::make_unique<TextMatcher>(text);
}

std::unique_ptr<Matcher> make_character_matcher(bool (*wanted)(uint32_t code)) {
  return std::make_unique<CharacterMatcher>(wanted);
}

}  // namespace slmc::tokenization
