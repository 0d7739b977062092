// Split patterns: linear hand-written scanners for the ones that most models share, PCRE2 for all
// others.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace slmc::tokenization {

/// A stretch of text. `matched`: the pattern matched it; else it lies between matches.
struct Match {
  size_t begin, end;
  bool matched;
};

class Matcher {
 public:
  virtual ~Matcher() = default;
  /// Appends stretches that cover `text` in order.
  virtual void find(std::string_view text, std::vector<Match>& out) const = 0;
};

/// A pattern of tokenizer.json that llama.cpp knows too, under `name`.
struct KnownPattern {
  std::string_view name;
  std::string_view regex;
};
/// "gpt-2", "llama-bpe", "qwen2".
const std::vector<KnownPattern>& known_patterns();
/// Null if there is none.
const KnownPattern* known_pattern(std::string_view name);

/// A scanner if the text of the pattern is a known one, else PCRE2. Throws Error(kUnsupported)
/// naming `where` if it cannot be translated.
std::unique_ptr<Matcher> make_regex_matcher(const std::string& regex, const std::string& where);
std::unique_ptr<Matcher> make_text_matcher(const std::string& text);
/// PCRE2 even for known patterns; tests compare the two.
std::unique_ptr<Matcher> make_pcre_matcher(const std::string& regex, const std::string& where);
/// Characters whose properties satisfy `wanted`, one match each.
std::unique_ptr<Matcher> make_character_matcher(bool (*wanted)(uint32_t code));

/// A regular expression of Oniguruma's Ruby syntax, as `tokenizers` uses it, rewritten for PCRE2:
/// classes become explicit ranges of our Unicode tables (PCRE2's own are of another version).
/// Throws Error(kUnsupported).
std::string translate_pattern(const std::string& regex, const std::string& where);

}  // namespace slmc::tokenization
