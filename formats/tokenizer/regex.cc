// Patterns without a scanner of their own: translated from Oniguruma's syntax and run by PCRE2
// under match and depth limits. Classes are spelled out as ranges of our Unicode tables, because
// PCRE2's follow another version of Unicode than `tokenizers`.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdio>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "compress/core/text.h"
#include "formats/tokenizer/patterns.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

constexpr uint32_t kMatchLimit = 20'000'000, kDepthLimit = 1'000'000, kHeapLimitKiB = 512 * 1024;

std::string range_text(const std::vector<std::pair<uint32_t, uint32_t>>& ranges) {
  std::string out;
  char buffer[64];
  for (const auto& [first, last] : ranges) {
    const int length = first == last
                           ? std::snprintf(buffer, sizeof buffer, "\\x{%x}", first)
                           : std::snprintf(buffer, sizeof buffer, "\\x{%x}-\\x{%x}", first, last);
    out.append(buffer, static_cast<size_t>(length));
  }
  return out;
}

std::string category_ranges(uint32_t mask, bool negated) {
  return range_text(
      negated ? unicode::ranges_where(
                    [](uint8_t p, uint32_t m) { return !unicode::in_categories(p, m); }, mask)
              : unicode::ranges_where(
                    [](uint8_t p, uint32_t m) { return unicode::in_categories(p, m); }, mask));
}

std::string space_ranges(bool negated) {
  return range_text(
      negated ? unicode::ranges_where([](uint8_t p, uint32_t) { return !unicode::is_space(p); }, 0)
              : unicode::ranges_where([](uint8_t p, uint32_t) { return unicode::is_space(p); }, 0));
}

/// Oniguruma's \w: Rust's without the two joiners and with six numbers of Latin-1.
bool oniguruma_word(uint32_t code, uint8_t property) {
  constexpr uint32_t kLatinNumbers[] = {0xb2, 0xb3, 0xb9, 0xbc, 0xbd, 0xbe};
  for (const uint32_t number : kLatinNumbers) {
    if (code == number) return true;
  }
  return unicode::is_word(property) && code != 0x200c && code != 0x200d;
}

std::string word_ranges(bool negated) {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xd800 && code < 0xe000) continue;
    if (oniguruma_word(code, unicode::properties(code)) == negated) continue;
    if (!ranges.empty() && ranges.back().second + 1 == code)
      ranges.back().second = code;
    else
      ranges.emplace_back(code, code);
  }
  return range_text(ranges);
}

/// Walks a pattern once; `out` grows by translated parts.
class Translator {
 public:
  Translator(const std::string& regex, const std::string& where) : regex_(regex), where_(where) {}

  std::string translate() {
    while (at_ < regex_.size()) {
      const char c = regex_[at_];
      if (c == '\\')
        escape();
      else if (in_class_)
        class_character(c);
      else if (c == '[')
        open_class();
      else
        out_ += regex_[at_++];
    }
    if (in_class_) unsupported("a character class that does not end");
    return out_;
  }

 private:
  [[noreturn]] void unsupported(const std::string& what) const {
    throw_unsupported(cat(where_, ": pattern ", Json(regex_).dump(), " has ", what, " (byte ", at_,
                          "), which is not supported"));
  }

  void open_class() {
    out_ += regex_[at_++];
    in_class_ = true;
    if (at_ < regex_.size() && regex_[at_] == '^') out_ += regex_[at_++];
    if (at_ < regex_.size() && regex_[at_] == ']') {  // A bracket first is itself; PCRE2 agrees.
      out_ += "\\]";
      ++at_;
    }
  }

  void class_character(char c) {
    if (c == ']') {
      in_class_ = false;
    } else if (c == '[') {
      const size_t end = regex_.find(":]", at_);
      if (regex_.compare(at_, 2, "[:") != 0 || end == std::string::npos)
        unsupported("a class inside a class");
      out_ += regex_.substr(at_, end + 2 - at_);
      at_ = end + 2;
      return;
    } else if (regex_.compare(at_, 2, "&&") == 0) {
      unsupported("an intersection of classes");
    }
    out_ += regex_[at_++];
  }

  void put_class(const std::string& ranges) { out_ += in_class_ ? ranges : "[" + ranges + "]"; }

  void escape() {
    if (at_ + 1 >= regex_.size()) unsupported("a lone backslash at its end");
    const char c = regex_[at_ + 1];
    switch (c) {
      case 's':
        put_class(space_ranges(false));
        break;
      case 'S':
        put_class(space_ranges(true));
        break;
      case 'd':
        put_class(category_ranges(1u << unicode::kNd, false));
        break;
      case 'D':
        put_class(category_ranges(1u << unicode::kNd, true));
        break;
      case 'w':
        put_class(word_ranges(false));
        break;
      case 'W':
        put_class(word_ranges(true));
        break;
      case 'h':
        put_class("0-9a-fA-F");
        break;
      case 'p':
      case 'P':
        return property(c == 'P');
      case 'u':
        return code_point();
      case 'H':
      case 'R':
      case 'X':
      case 'K':
      case 'y':
      case 'Y':
      case 'g':
      case 'k':
        unsupported(cat("\\", c));
      default:
        out_ += regex_.substr(at_, 2);
        break;
    }
    at_ += 2;
  }

  void code_point() {
    out_ += "\\x{" + regex_.substr(at_ + 2, 4) + "}";
    at_ += 6;
    if (at_ > regex_.size()) unsupported("a \\u escape that is cut off");
  }

  void property(bool negated) {
    size_t end = at_ + 2;
    std::string name;
    if (end < regex_.size() && regex_[end] == '{') {
      const size_t close = regex_.find('}', end);
      if (close == std::string::npos) unsupported("a property without its closing brace");
      name = regex_.substr(end + 1, close - end - 1);
      end = close + 1;
    } else {
      name = regex_.substr(end, 1);
      end += 1;
    }
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.erase(0, 1);
    }
    const uint32_t mask = unicode::category_mask(name);
    if (mask != 0)
      put_class(category_ranges(mask, negated));
    else
      out_ +=
          cat("\\", negated ? 'P' : 'p', "{", name, "}");  // Scripts and the like are PCRE2's own.
    at_ = end;
  }

  const std::string& regex_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

class PcreMatcher : public Matcher {
 public:
  PcreMatcher(const std::string& regex, const std::string& where) : regex_(regex) {
    const std::string translated = translate_pattern(regex, where);
    int error = 0;
    PCRE2_SIZE offset = 0;
    // Ruby's ^ and $ match at every line.
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                          &offset, nullptr);
    if (code_ == nullptr) {
      throw_unsupported(cat(where, ": pattern ", Json(regex).dump(),
                            " is not one that PCRE2 understands: ", message(error)));
    }
    // Without a just-in-time compiler (or on its failure) the interpreter does the same.
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);
  }
  ~PcreMatcher() override { pcre2_code_free(code_); }
  PcreMatcher(const PcreMatcher&) = delete;
  PcreMatcher& operator=(const PcreMatcher&) = delete;

  void find(std::string_view text, std::vector<Match>& out) const override {
    const Run run(code_);
    size_t last = 0, from = 0;
    bool any = false;
    while (from <= text.size()) {
      const auto [begin, end] = search(run, text, from);
      if (begin == kNone) break;
      if (begin == end && any &&
          end == last) {  // An empty match right behind a match does not count.
        if (from >= text.size()) break;
        unicode::next(text, from);
        continue;
      }
      if (begin > last) out.push_back({last, begin, false});
      if (end > begin) out.push_back({begin, end, true});
      last = from = end;
      any = true;
    }
    if (last < text.size()) out.push_back({last, text.size(), false});
  }

 private:
  static constexpr size_t kNone = ~size_t{0};

  /// What one thread needs to match.
  struct Run {
    explicit Run(const pcre2_code* code)
        : data(pcre2_match_data_create_from_pattern(code, nullptr)),
          context(pcre2_match_context_create(nullptr)),
          stack(pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, nullptr)) {
      pcre2_set_match_limit(context, kMatchLimit);
      pcre2_set_depth_limit(context, kDepthLimit);
      pcre2_set_heap_limit(context, kHeapLimitKiB);
      if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
    }
    ~Run() {
      pcre2_match_data_free(data);
      pcre2_match_context_free(context);
      pcre2_jit_stack_free(stack);
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;
    pcre2_match_data* data;
    pcre2_match_context* context;
    pcre2_jit_stack* stack;
  };

  static std::string message(int error) {
    char buffer[256] = {};
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof buffer);
    return buffer;
  }

  std::pair<size_t, size_t> search(const Run& run, std::string_view text, size_t from) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int count =
        pcre2_match(code_, subject, text.size(), from, PCRE2_NO_UTF_CHECK, run.data, run.context);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
      count = pcre2_match(code_, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          run.data, run.context);
    }
    if (count == PCRE2_ERROR_NOMATCH) return {kNone, kNone};
    if (count < 0) {
      throw_unsupported(cat("split pattern ", Json(regex_).dump(), " gave up at byte ", from,
                            " of a text of ", text.size(), " bytes: ", message(count)));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(run.data);
    return {offsets[0], offsets[1]};
  }

  std::string regex_;
  pcre2_code* code_ = nullptr;
};

}  // namespace

std::string translate_pattern(const std::string& regex, const std::string& where) {
  return Translator(regex, where).translate();
}

std::unique_ptr<Matcher> make_pcre_matcher(const std::string& regex, const std::string& where) {
  return std::make_unique<PcreMatcher>(regex, where);
}

}  // namespace slmc::tokenization
