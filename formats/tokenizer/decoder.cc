// Decoders: token texts back to text.
#include <algorithm>
#include <utility>

#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/patterns.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

/// The byte of a token "<0x1F>", or -1.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

std::string joined(const std::vector<std::string>& tokens) {
  std::string out;
  for (const std::string& token : tokens) out += token;
  return out;
}

class ReplaceDecoder : public Decoder {
 public:
  explicit ReplaceDecoder(const Json& json, const std::string& where)
      : normalizer_(make_normalizer(json, where)) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) token = normalizer_->apply(std::move(token));
  }

 private:
  std::unique_ptr<Normalizer> normalizer_;  // The same rule as the normalizer's, token by token.
};

class ByteLevelDecoder : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) bytes += unmap_bytes(token);
    tokens.assign(1, unicode::decode_lossy(bytes));
  }
};

class ByteFallbackDecoder : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    std::string bytes;  // Of the run of byte tokens so far.
    const auto flush = [&] {
      if (unicode::is_valid(bytes)) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), std::string(kReplacement));
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const int byte = fallback_byte(token); byte >= 0) {
        bytes.push_back(static_cast<char>(byte));
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  }
};

class FuseDecoder : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override { tokens.assign(1, joined(tokens)); }
};

class StripDecoder : public Decoder {
 public:
  StripDecoder(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void apply(std::vector<std::string>& tokens) const override {
    const size_t n = content_.size();
    if (n == 0) return;
    for (std::string& token : tokens) {
      size_t begin = 0, end = token.size();
      for (int64_t i = 0; i < start_ && token.compare(begin, n, content_) == 0 && begin < end; ++i)
        begin += n;
      for (int64_t i = 0; i < stop_ && end >= begin + n && token.compare(end - n, n, content_) == 0;
           ++i)
        end -= n;
      token = token.substr(begin, end - begin);
    }
  }

 private:
  std::string content_;
  int64_t start_, stop_;
};

/// `text` with every `wanted` replaced.
std::string replaced(std::string text, std::string_view wanted, std::string_view content) {
  for (size_t at = 0; !wanted.empty() && (at = text.find(wanted, at)) != std::string::npos;) {
    text.replace(at, wanted.size(), content);
    at += content.size();
  }
  return text;
}

/// Joins words with spaces, and what begins with the prefix to what is before it.
class WordPieceDecoder : public Decoder {
 public:
  WordPieceDecoder(std::string prefix, bool cleanup, bool opens)
      : prefix_(std::move(prefix)), cleanup_(cleanup), opens_(opens) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      if (i > 0 || !opens_)
        token = token.starts_with(prefix_) ? token.substr(prefix_.size()) : " " + token;
      if (cleanup_) token = cleaned(std::move(token));
    }
  }

 private:
  /// English punctuation and contractions as they are usually written.
  static std::string cleaned(std::string token) {
    constexpr std::string_view kRules[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& rule : kRules) token = replaced(std::move(token), rule[0], rule[1]);
    return token;
  }
  std::string prefix_;
  bool cleanup_, opens_;
};

/// Ends of words are marked; each but the text's last becomes a space.
class SuffixDecoder : public Decoder {
 public:
  explicit SuffixDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = replaced(std::move(tokens[i]), suffix_, i + 1 == tokens.size() ? "" : " ");
  }

 private:
  std::string suffix_;
};

class MetaspaceDecoder : public Decoder {
 public:
  MetaspaceDecoder(std::string replacement, bool prepended)
      : replacement_(std::move(replacement)), prepended_(prepended) {}
  void apply(std::vector<std::string>& tokens) const override {
    const auto matcher = make_text_matcher(replacement_);
    std::vector<Match> matches;
    for (size_t i = 0; i < tokens.size(); ++i) {
      matches.clear();
      matcher->find(tokens[i], matches);
      std::string out;
      for (const Match& m : matches) {
        if (!m.matched)
          out.append(tokens[i], m.begin, m.end - m.begin);
        else if (i > 0 || !prepended_)
          out += ' ';  // The first token loses what the pre-tokenizer put before it.
      }
      tokens[i] = std::move(out);
    }
  }

 private:
  std::string replacement_;
  bool prepended_;
};

}  // namespace

/// A decoder and how it treats the ends of a text.
struct DecoderChain::Step {
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<Decoder>
      inside;  // For the middle of a text; null: the same. A step without either is skipped.
  bool only_at_start = false;
};

DecoderChain::DecoderChain(const Json& json, const std::string& where) {
  joins_with_space_ = json.is_null();
  if (!json.is_null()) add(json, where);
}
DecoderChain::DecoderChain(DecoderChain&&) noexcept = default;
DecoderChain::~DecoderChain() = default;

void DecoderChain::add(const Json& json, const std::string& where) {
  const Fields fields(json, where);
  const std::string type = fields.string("type");
  Step step;
  if (type == "Sequence") {
    for (const Json& part : fields.array("decoders")) add(part, where);
    return;
  }
  const bool fused = std::any_of(steps_.begin(), steps_.end(), [](const Step& s) {
    return dynamic_cast<const FuseDecoder*>(s.decoder.get()) != nullptr ||
           dynamic_cast<const ByteLevelDecoder*>(s.decoder.get()) != nullptr;
  });
  const bool by_token = type == "WordPiece" || type == "Metaspace" || type == "BPEDecoder";
  // What such a decoder does to a fused text depends on all of it.
  if (fused && by_token) end_rules_ = true;
  if (type == "ByteLevel") {
    byte_level_ = true;
    step.decoder = std::make_unique<ByteLevelDecoder>();
  } else if (type == "Replace") {
    if (fused) end_rules_ = true;  // It could match across tokens.
    step.decoder = std::make_unique<ReplaceDecoder>(json, where);
  } else if (type == "ByteFallback") {
    byte_fallback_ = true;
    step.decoder = std::make_unique<ByteFallbackDecoder>();
  } else if (type == "Fuse") {
    step.decoder = std::make_unique<FuseDecoder>();
  } else if (type == "Strip") {
    const int64_t start = fields.integer("start"), stop = fields.integer("stop");
    if (start < 0 || stop < 0)
      throw_bad_input(cat(where, ": start and stop of Strip must not be negative"));
    step.decoder = std::make_unique<StripDecoder>(fields.string("content"), start, stop);
    step.only_at_start = fused;
    if (fused && stop > 0) end_rules_ = true;
  } else if (type == "WordPiece") {
    const std::string prefix = fields.string_or("prefix", "##");
    const bool cleanup = fields.boolean_or("cleanup", true);
    step.decoder = std::make_unique<WordPieceDecoder>(prefix, cleanup, true);
    step.inside = std::make_unique<WordPieceDecoder>(prefix, cleanup, false);
  } else if (type == "BPEDecoder") {
    word_end_ = fields.string_or("suffix", "</w>");
    step.decoder = std::make_unique<SuffixDecoder>(word_end_);
  } else if (type == "Metaspace") {
    const std::string replacement = fields.string_or("replacement", "\xe2\x96\x81");
    const bool prefix = fields.boolean_or("add_prefix_space", true);
    step.decoder = std::make_unique<MetaspaceDecoder>(
        replacement, fields.string_or("prepend_scheme", prefix ? "always" : "never") != "never");
    step.inside = std::make_unique<MetaspaceDecoder>(replacement, false);
  } else {
    throw_unsupported(cat(where, ": decoder ", type, " is not supported"));
  }
  steps_.push_back(std::move(step));
}

std::string DecoderChain::decode(std::vector<std::string> tokens) const {
  return decode_part(std::move(tokens), true);
}

std::string DecoderChain::decode_part(std::vector<std::string> tokens, bool first) const {
  if (joins_with_space_) {
    std::string out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 || !first) out += ' ';
      out += tokens[i];
    }
    return out;
  }
  for (const Step& step : steps_) {
    if (first)
      step.decoder->apply(tokens);
    else if (step.inside != nullptr)
      step.inside->apply(tokens);
    else if (!step.only_at_start)
      step.decoder->apply(tokens);
  }
  return joined(tokens);
}

bool DecoderChain::certain(const std::vector<std::string>& tokens) const {
  if (tokens.empty()) return true;
  if (end_rules_) return false;
  if (!word_end_.empty() && tokens.back().find(word_end_) != std::string::npos) return false;
  if (byte_fallback_ && fallback_byte(tokens.back()) >= 0) return false;
  if (!byte_level_) return true;
  std::string
      tail;  // A character has at most four bytes, so the last four tokens with text decide.
  for (size_t i = tokens.size(); i-- > 0 && tail.size() < 4;) tail = unmap_bytes(tokens[i]) + tail;
  return unicode::incomplete_tail(tail) == 0;
}

std::string DecoderChain::bytes(const std::string& token) const {
  if (byte_level_) return unmap_bytes(token);
  if (byte_fallback_) {
    if (const int byte = fallback_byte(token); byte >= 0)
      return std::string(1, static_cast<char>(byte));
  }
  return decode_part({token}, false);
}

}  // namespace slmc::tokenization
