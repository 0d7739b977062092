// Unigram: of all ways to cover a piece with tokens the one whose scores (log probabilities) sum
// highest, found in one pass from left to right (Viterbi). Kudo 2018, arXiv 1804.10959.
#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

constexpr double kUnknownPenalty = 10;  // Below the lowest score of a token.
constexpr uint32_t kNowhere = ~0u;

/// All tokens as a tree of bytes. Nodes lie breadth first, so a node's children are neighbours.
class PrefixTree {
 public:
  explicit PrefixTree(const Vocabulary& vocabulary) {
    struct Range {
      size_t begin, end, depth;
    };
    std::vector<std::pair<std::string_view, int32_t>> tokens;
    for (int32_t id = 0; id < vocabulary.size(); ++id) tokens.emplace_back(vocabulary.text(id), id);
    std::sort(tokens.begin(), tokens.end());
    std::vector<Range> ranges = {{0, tokens.size(), 0}};
    labels_.push_back(0);
    for (size_t node = 0; node < ranges.size(); ++node) {
      auto [at, end, depth] = ranges[node];
      ids_.push_back(-1);
      children_.push_back(static_cast<uint32_t>(ranges.size()));
      if (at < end && tokens[at].first.size() == depth) ids_.back() = tokens[at++].second;
      while (at < end) {
        const char label = tokens[at].first[depth];
        const size_t begin = at;
        while (at < end && tokens[at].first[depth] == label) ++at;
        labels_.push_back(static_cast<unsigned char>(label));
        ranges.push_back({begin, at, depth + 1});
      }
    }
    children_.push_back(static_cast<uint32_t>(ranges.size()));
  }

  /// Calls body(length, id) for each token that `text` begins with, the shortest first.
  template <typename Body>
  void prefixes(std::string_view text, const Body& body) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const auto label = static_cast<unsigned char>(text[i]);
      const auto end = labels_.begin() + children_[node + 1];
      const auto found = std::lower_bound(labels_.begin() + children_[node], end, label);
      if (found == end || *found != label) return;
      node = static_cast<uint32_t>(found - labels_.begin());
      if (ids_[node] >= 0) body(i + 1, ids_[node]);
    }
  }

 private:
  std::vector<unsigned char> labels_;  // The byte that leads to a node.
  std::vector<uint32_t> children_;     // Its first child; the next node's is the end of them.
  std::vector<int32_t> ids_;           // The token that ends here, or -1.
};

class Unigram : public TokenModel {
 public:
  Unigram(TokenizerFile& file, const std::string& where)
      : vocabulary_(std::move(file.vocabulary)),
        scores_(std::move(file.scores)),
        tree_(vocabulary_) {
    const Fields model(file.shell["model"], cat(where, ": model"));
    byte_fallback_ = model.boolean_or("byte_fallback", false);
    if (model.find("unk_id") != nullptr) {
      const int64_t id = model.integer("unk_id");
      if (id < 0 || id >= vocabulary_.size())
        throw_bad_input(cat(where, ": unk_id ", id, " is not in the vocabulary of ",
                            vocabulary_.size(), " tokens"));
      unknown_ = static_cast<int32_t>(id);
    }
    for (const double score : scores_) lowest_ = std::min(lowest_, score);
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    for (unsigned byte = 0; byte < 256; ++byte)
      fallback_ids_[byte] =
          vocabulary_.find(cat("<0x", kDigits[byte >> 4], kDigits[byte & 15], ">"));
  }

  const Vocabulary& vocabulary() const override { return vocabulary_; }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    if (piece.size() >= kNowhere) throw_unsupported("a text of 4 GB without a place to split it");
    const std::vector<Node> best = search(piece);
    // From the end to the beginning; neighbouring unknown tokens are one.
    std::vector<std::pair<size_t, size_t>> parts;
    bool fusing = false;
    for (size_t end = piece.size(); end > 0;) {
      const Node& node = best[end];
      const bool unknown = unknown_ >= 0 && node.id == unknown_;
      if (unknown && fusing)
        parts.back().first = node.start;
      else
        parts.emplace_back(node.start, end);
      fusing = unknown;
      end = node.start;
    }
    for (size_t i = parts.size(); i-- > 0;)
      add(piece.substr(parts[i].first, parts[i].second - parts[i].first), out);
  }

 private:
  /// The best way to cover a text up to here: its score, and its last token.
  struct Node {
    double score = 0;
    uint32_t start = kNowhere;
    int32_t id = -1;
  };

  std::vector<Node> search(std::string_view piece) const {
    std::vector<Node> best(piece.size() + 1);
    uint64_t steps = 0;
    for (size_t at = 0; at < piece.size();) {
      const double before = best[at].score;
      const auto offer = [&](size_t end, double score, int32_t id) {
        Node& node = best[end];
        ++steps;
        if (node.start == kNowhere || before + score > node.score)
          node = {score + before, static_cast<uint32_t>(at), id};
      };
      size_t behind = at;
      unicode::next(piece, behind);
      bool covered = false;  // Some token is exactly this character.
      tree_.prefixes(piece.substr(at), [&](size_t length, int32_t id) {
        offer(at + length, scores_[static_cast<size_t>(id)], id);
        covered = covered || at + length == behind;
      });
      if (!covered) {
        if (unknown_ < 0)
          throw_bad_input(
              "the text has a character that the tokenizer does not know, and the "
              "tokenizer has no unknown token");
        offer(behind, lowest_ - kUnknownPenalty, unknown_);
      }
      at = behind;
    }
    merge_steps() += steps;
    return best;
  }

  void add(std::string_view text, std::vector<int32_t>& out) const {
    if (const int32_t id = vocabulary_.find(text); id >= 0) return out.push_back(id);
    const auto byte_id = [&](char c) { return fallback_ids_[static_cast<unsigned char>(c)]; };
    if (byte_fallback_ &&
        std::all_of(text.begin(), text.end(), [&](char c) { return byte_id(c) >= 0; })) {
      for (const char c : text) out.push_back(byte_id(c));
      return;
    }
    out.push_back(unknown_);
  }

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  PrefixTree tree_;
  double lowest_ = std::numeric_limits<double>::infinity();
  int32_t unknown_ = -1;
  bool byte_fallback_ = false;
  std::array<int32_t, 256> fallback_ids_;
};

}  // namespace

std::unique_ptr<TokenModel> make_unigram(TokenizerFile& file, const std::string& where) {
  return std::make_unique<Unigram>(file, where);
}

}  // namespace slmc::tokenization
