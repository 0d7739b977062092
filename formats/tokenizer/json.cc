// A forward scanner over tokenizer.json. A general JSON document of Qwen's 11 MB would cost seconds
// and a few hundred megabytes.
#include "formats/tokenizer/json.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

constexpr int64_t kMaxId =
    1 << 23;  // Far above any vocabulary; bounds the memory that a hostile file can ask for.

/// Reads JSON values in order. Errors name the file and byte.
class Scanner {
 public:
  Scanner(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  [[noreturn]] void fail(const std::string& what) const { fail_at(at_, what); }
  [[noreturn]] void fail_at(size_t at, const std::string& what) const {
    throw_bad_input(cat(where_, ": not a valid tokenizer.json at byte ", at, ": ", what));
  }
  size_t at() const { return at_; }
  const std::string& where() const { return where_; }

  char peek() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
    if (at_ == text_.size()) fail("the text ends too early");
    return text_[at_];
  }
  void expect(char c) {
    const char found = peek();
    if (found != c) fail(cat("expected '", c, "', found '", printable(found), "'"));
    ++at_;
  }
  /// After an element: true if another follows, false after consuming `close`.
  bool more(char close) {
    const char c = peek();
    if (c != ',' && c != close)
      fail(cat("expected ',' or '", close, "', found '", printable(c), "'"));
    ++at_;
    return c == ',';
  }
  /// Calls body(key) for each member of an object; the body must read the value.
  template <typename Body>
  void object(const Body& body) {
    expect('{');
    if (peek() == '}') {
      ++at_;
      return;
    }
    std::string key;
    do {
      key.clear();
      string(key);
      expect(':');
      body(static_cast<const std::string&>(key));
    } while (more('}'));
  }
  /// Calls body() for each element of an array.
  template <typename Body>
  void array(const Body& body) {
    expect('[');
    if (peek() == ']') {
      ++at_;
      return;
    }
    do body();
    while (more(']'));
  }

  /// Appends a string's decoded content.
  void string(std::string& out) {
    expect('"');
    while (true) {
      size_t end = at_;
      while (end < text_.size() && text_[end] != '"' && text_[end] != '\\' &&
             static_cast<unsigned char>(text_[end]) >= 0x20) {
        if (static_cast<unsigned char>(text_[end]) < 0x80) {
          ++end;
          continue;
        }
        const size_t length = unicode::valid_length(text_, end);
        if (length == 0) fail_at(end, "the bytes are not UTF-8");
        end += length;
      }
      out.append(text_, at_, end - at_);
      at_ = end;
      if (at_ == text_.size()) fail("a string does not end");
      if (text_[at_] == '"') {
        ++at_;
        return;
      }
      if (text_[at_] != '\\') fail("a control character in a string");
      escape(out);
    }
  }
  int64_t integer() {
    peek();
    const size_t start = at_;
    int64_t value = 0;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && value <= kMaxId)
      value = value * 10 + (text_[at_++] - '0');
    if (at_ == start) fail("expected a token id (an integer from 0)");
    if (value >= kMaxId) fail_at(start, cat("token id over ", kMaxId));
    return value;
  }
  double number() {
    peek();
    double value = 0;
    const char* end = text_.data() + text_.size();
    const auto result = std::from_chars(text_.data() + at_, end, value);
    if (result.ec != std::errc() || !std::isfinite(value)) fail("expected a number");
    at_ = static_cast<size_t>(result.ptr - text_.data());
    return value;
  }
  /// The next value, whatever it is, as a document of its own.
  Json document() {
    peek();
    const size_t start = at_;
    skip();
    return parse_json(text_.substr(start, at_ - start), cat(where_, " (from byte ", start, ")"));
  }
  /// Only space may follow.
  void finish() {
    while (at_ < text_.size()) {
      if (std::string_view(" \n\r\t").find(text_[at_]) == std::string_view::npos)
        fail("text after the end of the document");
      ++at_;
    }
  }

 private:
  static std::string printable(char c) {
    return static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f
               ? std::string(1, c)
               : std::string("\\x?");
  }
  uint32_t hex4() {
    if (text_.size() - at_ < 4) fail("a \\u escape is cut off");
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = text_[at_++];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("a \\u escape needs four hexadecimal digits");
      value = value << 4 | static_cast<uint32_t>(digit);
    }
    return value;
  }
  void escape(std::string& out) {
    const size_t start = at_++;
    if (at_ == text_.size()) fail("a string does not end");
    const char c = text_[at_++];
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const size_t index = kFrom.find(c); index != std::string_view::npos) {
      out.push_back(kTo[index]);
      return;
    }
    if (c != 'u') fail_at(start, "an unknown escape");
    uint32_t code = hex4();
    if (code >= 0xdc00 && code < 0xe000) fail_at(start, "half a surrogate pair");
    if (code >= 0xd800 && code < 0xdc00) {
      if (text_.substr(at_, 2) != "\\u") fail_at(start, "half a surrogate pair");
      at_ += 2;
      const uint32_t low = hex4();
      if (low < 0xdc00 || low >= 0xe000) fail_at(start, "half a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    unicode::append(out, code);
  }
  /// Moves behind the next value by counting brackets; parse_json judges what lies between.
  void skip() {
    int depth = 0;
    do {
      const char c = peek();
      if (c == '"') {
        for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
          if (text_[at_] == '\\') ++at_;
        }
        if (at_ >= text_.size()) {
          at_ = text_.size();
          fail("a string does not end");
        }
        ++at_;
      } else if (c == '{' || c == '[') {
        ++depth;
        ++at_;
      } else if (c == '}' || c == ']') {
        if (--depth < 0) fail("a bracket too many");
        ++at_;
      } else if (depth > 0 && (c == ',' || c == ':')) {
        ++at_;
      } else {
        const size_t start = at_;
        while (at_ < text_.size() &&
               std::string_view(",:]}[{\" \n\r\t").find(text_[at_]) == std::string_view::npos)
          ++at_;
        if (at_ == start) fail("expected a value");
      }
    } while (depth > 0);
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

void read_vocabulary(Scanner& scan, Vocabulary& vocabulary, size_t bytes) {
  vocabulary.reserve(bytes / 32, bytes / 4);
  scan.object([&](const std::string& token) {
    const size_t at = scan.at();
    const auto id = static_cast<int32_t>(scan.integer());
    if (vocabulary.add(token, id)) return;
    if (vocabulary.has(id)) scan.fail_at(at, cat("id ", id, " is given twice in the vocabulary"));
    scan.fail_at(at, cat("the vocabulary gives one token two ids, the second ", id));
  });
}

void read_merges(Scanner& scan, TokenizerFile& file) {
  file.has_merges = true;
  std::string both, right;
  scan.array([&] {
    const size_t at = scan.at();
    both.clear();
    if (scan.peek() == '"') {
      scan.string(both);
      const size_t space = both.find(' ');
      if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) {
        scan.fail_at(at, "a merge must be two tokens separated by one space");
      }
      file.add_merge(std::string_view(both).substr(0, space),
                     std::string_view(both).substr(space + 1));
      return;
    }
    int count = 0;
    right.clear();
    scan.array([&] { scan.string(count++ == 0 ? both : right); });
    if (count != 2) scan.fail_at(at, cat("a merge must have two tokens, found ", count));
    file.add_merge(both, right);
  });
}

/// A list of [token, score], whose ids are their places.
void read_scored_vocabulary(Scanner& scan, TokenizerFile& file, size_t bytes) {
  file.vocabulary.reserve(bytes / 32, bytes / 4);
  file.has_scores = true;
  std::string token;
  scan.array([&] {
    const size_t at = scan.at();
    if (file.scores.size() >= static_cast<size_t>(kMaxId))
      scan.fail(cat("more than ", kMaxId, " tokens"));
    token.clear();
    scan.expect('[');
    scan.string(token);
    scan.expect(',');
    file.scores.push_back(scan.number());
    scan.expect(']');
    if (!file.vocabulary.add(token, static_cast<int32_t>(file.scores.size()) - 1))
      scan.fail_at(at, cat("token ", file.scores.size() - 1, " is the same as an earlier one"));
  });
}

void read_model(Scanner& scan, Json& model, TokenizerFile& file, size_t bytes) {
  bool seen_vocabulary = false;
  scan.object([&](const std::string& key) {
    const bool twice = (key == "vocab" && seen_vocabulary) ||
                       (key == "merges" && file.has_merges) || model.contains(key);
    if (twice) scan.fail(cat("key '", key, "' appears twice in the model"));
    if (key == "vocab") {
      seen_vocabulary = true;
      if (scan.peek() == '[')
        read_scored_vocabulary(scan, file, bytes);
      else
        read_vocabulary(scan, file.vocabulary, bytes);
    } else if (key == "merges") {
      read_merges(scan, file);
    } else {
      model[key] = scan.document();
    }
  });
  if (!seen_vocabulary) scan.fail("the model has no vocab");
}

}  // namespace

std::vector<std::pair<std::string_view, std::string_view>> TokenizerFile::merges() const {
  std::vector<std::pair<std::string_view, std::string_view>> out;
  out.reserve(merge_places.size());
  const std::string_view text = merge_text;
  for (const MergeText& m : merge_places) {
    out.emplace_back(text.substr(m.left, m.right - m.left), text.substr(m.right, m.end - m.right));
  }
  return out;
}

void TokenizerFile::add_merge(std::string_view left, std::string_view right) {
  if (merge_text.size() + left.size() + right.size() > std::numeric_limits<uint32_t>::max()) {
    throw_unsupported("merges of more than 4 GB of text");
  }
  const auto start = static_cast<uint32_t>(merge_text.size());
  merge_text.append(left);
  const auto middle = static_cast<uint32_t>(merge_text.size());
  merge_text.append(right);
  merge_places.push_back({start, middle, static_cast<uint32_t>(merge_text.size())});
}

TokenizerFile parse_tokenizer_json(std::string_view text, const std::string& where) {
  TokenizerFile file;
  file.shell = Json::object();
  Scanner scan(text, where);
  if (scan.peek() != '{') scan.fail("expected an object");
  scan.object([&](const std::string& key) {
    if (file.shell.contains(key)) scan.fail(cat("key '", key, "' appears twice"));
    if (key == "model" && scan.peek() == '{') {
      Json model = Json::object();
      read_model(scan, model, file, text.size());
      file.shell[key] = std::move(model);
    } else {
      file.shell[key] = scan.document();
    }
  });
  scan.finish();
  if (!file.shell.contains("model"))
    throw_bad_input(cat(where, ": not a tokenizer.json: it has no model"));
  if (!file.shell["model"].is_object())
    throw_bad_input(cat(where, ": not a tokenizer.json: its model is not an object"));
  return file;
}

}  // namespace slmc::tokenization
