#include "formats/chat/jinja_lexer.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::jinja {
namespace {

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool opens_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) {
    // Line ends are "\n"; one at the end of the template does not count.
    for (size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r') {
        text_ += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      } else {
        text_ += source[i];
      }
    }
    if (text_.ends_with('\n')) text_.pop_back();
  }

  std::vector<Token> run() {
    while (at_ < text_.size()) outside();
    put(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw_bad_input(cat("chat template, line ", line_, ": ", what));
  }
  void put(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  bool here(std::string_view wanted) const {
    return std::string_view(text_).substr(at_).starts_with(wanted);
  }
  void advance(size_t count) {
    line_ +=
        static_cast<int>(std::count(text_.begin() + static_cast<ptrdiff_t>(at_),
                                    text_.begin() + static_cast<ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
  }

  /// Text up to the next tag, and the tag.
  void outside() {
    size_t open = at_;
    do {
      open = text_.find('{', open);
      if (open == std::string::npos) open = text_.size();
    } while (open < text_.size() &&
             (open + 1 == text_.size() ||
              std::string_view("{%#").find(text_[open + 1]) == std::string_view::npos) &&
             ++open);
    std::string_view text = std::string_view(text_).substr(at_, open - at_);
    if (open < text_.size()) {
      const char sign = open + 2 < text_.size() ? text_[open + 2] : '\0';
      if (sign == '-') {
        while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
      } else if (sign != '+' && text_[open + 1] != '{') {
        text = without_indent(text);
      }
    }
    if (!text.empty()) put(TokenKind::kText, std::string(text));
    advance(open - at_);
    if (at_ == text_.size()) return;
    const char kind = text_[at_ + 1];
    advance(2);
    if (here("-") || (here("+") && kind != '{')) advance(1);
    if (kind == '#') return comment();
    put(kind == '{' ? TokenKind::kOutputBegin : TokenKind::kTagBegin, "");
    inside(kind == '{' ? "}}" : "%}");
    if (kind == '%') raw();
  }

  /// lstrip_blocks: a tag takes the space before it, if there is nothing else on the line.
  std::string_view without_indent(std::string_view text) const {
    const size_t line = text.rfind('\n') + 1;  // 0 if there is none.
    if (line == 0 && !opens_line_) return text;
    return std::all_of(text.begin() + static_cast<ptrdiff_t>(line), text.end(), is_blank)
               ? text.substr(0, line)
               : text;
  }

  /// Behind a tag's end `length` long: its sign, and trim_blocks.
  void close(char sign, size_t length, bool trims) {
    advance(length);
    const size_t start = at_;
    if (sign == '-') {
      while (at_ < text_.size() && is_blank(text_[at_])) advance(1);
    } else if (trims && sign != '+' && here("\n")) {
      advance(1);
    }
    opens_line_ = at_ > start && text_[at_ - 1] == '\n';
  }

  void comment() {
    const size_t end = text_.find("#}", at_);
    if (end == std::string::npos) fail("a comment does not end");
    const char sign = end > at_ ? text_[end - 1] : '\0';
    advance(end - at_);
    close(sign, 2, true);
  }

  void inside(std::string_view end) {
    std::vector<char> brackets;
    while (true) {
      while (at_ < text_.size() && is_blank(text_[at_])) advance(1);
      if (at_ == text_.size()) fail("a tag does not end");
      if (brackets.empty()) {
        const bool signed_end = (text_[at_] == '-' || (text_[at_] == '+' && end == "%}")) &&
                                std::string_view(text_).substr(at_ + 1).starts_with(end);
        if (signed_end || here(end)) {
          const char sign = signed_end ? text_[at_] : '\0';
          put(end == "}}" ? TokenKind::kOutputEnd : TokenKind::kTagEnd, "");
          return close(sign, signed_end ? 3 : 2, end == "%}");
        }
      }
      token(brackets);
    }
  }

  void token(std::vector<char>& brackets) {
    const char c = text_[at_];
    if (opens_name(c)) {
      size_t end = at_;
      while (end < text_.size() && (opens_name(text_[end]) || is_digit(text_[end]))) ++end;
      put(TokenKind::kName, text_.substr(at_, end - at_));
      return advance(end - at_);
    }
    if (is_digit(c)) return number();
    if (c == '"' || c == '\'') return string();
    if (std::string_view("([{").find(c) != std::string_view::npos) {
      brackets.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (std::string_view(")]}").find(c) != std::string_view::npos) {
      if (brackets.empty() || brackets.back() != c) fail(cat("unexpected '", c, "'"));
      brackets.pop_back();
    }
    for (const std::string_view two : {"==", "!=", "<=", ">=", "//", "**"}) {
      if (here(two)) {
        put(TokenKind::kOperator, std::string(two));
        return advance(2);
      }
    }
    if (std::string_view("+-*/%~<>=.,:|()[]{}").find(c) == std::string_view::npos)
      fail(cat("unexpected character '", c, "'"));
    put(TokenKind::kOperator, std::string(1, c));
    advance(1);
  }

  void number() {
    std::string digits;
    bool is_float = false;
    size_t end = at_;
    const auto run = [&] {
      while (end < text_.size() && (is_digit(text_[end]) || text_[end] == '_')) {
        if (text_[end] != '_') digits += text_[end];
        ++end;
      }
    };
    run();
    if (end + 1 < text_.size() && text_[end] == '.' && is_digit(text_[end + 1])) {
      is_float = true;
      digits += text_[end++];
      run();
    }
    if (end + 1 < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      const bool sign = text_[end + 1] == '-' || text_[end + 1] == '+';
      if (end + 1 + sign < text_.size() && is_digit(text_[end + 1 + sign])) {
        is_float = true;
        digits.append(text_, end, 1 + sign);
        end += 1 + sign;
        run();
      }
    }
    if (digits.size() > 18) fail("a number of more than 18 digits");
    put(is_float ? TokenKind::kFloat : TokenKind::kInteger, digits);
    advance(end - at_);
  }

  void string() {
    const char quote = text_[at_];
    std::string out;
    size_t end = at_ + 1;
    for (; end < text_.size() && text_[end] != quote; ++end) {
      if (text_[end] != '\\' || end + 1 == text_.size())
        out += text_[end];
      else
        escape(++end, out);
    }
    if (end >= text_.size()) fail("a string does not end");
    put(TokenKind::kString, out);
    advance(end + 1 - at_);
  }

  /// Python's escapes; `end` is at the character behind the backslash, and left at the last one.
  void escape(size_t& end, std::string& out) {
    constexpr std::string_view kFrom = "nrtabfv0\\'\"",
                               kTo = std::string_view("\n\r\t\a\b\f\v\0\\'\"", 11);
    const char c = text_[end];
    if (c == '\n') return;
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (length == 0) {
      const size_t index = kFrom.find(c);
      if (index == std::string_view::npos) out += '\\';
      out += index == std::string_view::npos ? c : kTo[index];
      return;
    }
    uint32_t code = 0;
    for (size_t i = 1; i <= length; ++i) {
      const char d = end + i < text_.size() ? text_[end + i] : '\0';
      const int digit = is_digit(d)            ? d - '0'
                        : d >= 'a' && d <= 'f' ? d - 'a' + 10
                        : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                               : -1;
      if (digit < 0) fail(cat("\\", c, " needs ", length, " hexadecimal digits"));
      code = code << 4 | static_cast<uint32_t>(digit);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
      fail("an escape that is no character");
    unicode::append(out, code);
    end += length;
  }

  /// Behind `{% raw %}`: all up to `{% endraw %}` is text.
  void raw() {
    const size_t n = tokens_.size();
    if (n < 3 || tokens_[n - 2].text != "raw" || tokens_[n - 3].kind != TokenKind::kTagBegin)
      return;
    tokens_.resize(n - 3);
    for (size_t open = at_; (open = text_.find("{%", open)) != std::string::npos; ++open) {
      size_t at = open + 2;
      const char left = at < text_.size() ? text_[at] : '\0';
      if (left == '-' || left == '+') ++at;
      while (at < text_.size() && is_blank(text_[at])) ++at;
      if (text_.compare(at, 6, "endraw") != 0) continue;
      at += 6;
      while (at < text_.size() && is_blank(text_[at])) ++at;
      const char right = at < text_.size() ? text_[at] : '\0';
      const size_t close_at = right == '-' || right == '+' ? at + 1 : at;
      if (text_.compare(close_at, 2, "%}") != 0) continue;
      std::string_view text = std::string_view(text_).substr(at_, open - at_);
      if (left == '-')
        while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
      else if (left != '+')
        text = without_indent(text);
      put(TokenKind::kText, std::string(text));
      advance(at - at_);
      return close(right, close_at + 2 - at, true);
    }
    fail("a raw block does not end");
  }

  std::string text_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool opens_line_ = true;  // Nothing but a line end lies before this place.
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace slmc::jinja
