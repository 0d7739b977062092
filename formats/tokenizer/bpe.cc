// Byte pair encoding: a piece starts as characters (or bytes), and the adjacent pair of lowest rank
// merges, leftmost first, until none is left. Short pieces scan for the minimum; long ones keep the
// places of a pair together and take pair by pair, which is linear.
#include <algorithm>
#include <array>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/merge_queue.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

constexpr size_t kShort = 32;  // Pieces up to this many symbols are merged without a heap.
constexpr int32_t kNone = -1;

class Bpe : public TokenModel {
 public:
  Bpe(TokenizerFile& file, const std::string& where) {
    const Fields model(file.shell["model"], cat(where, ": model"));
    if (model.number_or("dropout", 0) != 0)
      throw_unsupported(cat(where, ": BPE with dropout gives random ids"));
    prefix_ = model.string_or("continuing_subword_prefix", "");
    suffix_ = model.string_or("end_of_word_suffix", "");
    fuse_unknown_ = model.boolean_or("fuse_unk", false);
    byte_fallback_ = model.boolean_or("byte_fallback", false);
    ignore_merges_ = model.boolean_or("ignore_merges", false);
    vocabulary_ = std::move(file.vocabulary);
    if (const std::string unknown = model.string_or("unk_token", ""); !unknown.empty()) {
      unknown_ = vocabulary_.find(unknown);
      unknown_missing_ = unknown_ < 0 ? unknown : "";
    }
    read_merges(file, where);
    for (unsigned byte = 0; byte < 256; ++byte) {
      std::string character;
      unicode::append(character, byte_to_character(static_cast<unsigned char>(byte)));
      character_ids_[byte] = vocabulary_.find(character);
      constexpr std::string_view kDigits = "0123456789ABCDEF";
      fallback_ids_[byte] =
          vocabulary_.find(cat("<0x", kDigits[byte >> 4], kDigits[byte & 15], ">"));
    }
  }

  const Vocabulary& vocabulary() const override { return vocabulary_; }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    if (ignore_merges_) {
      if (const int32_t whole = vocabulary_.find(piece); whole >= 0) return out.push_back(whole);
    }
    const size_t start = out.size();
    characters(piece, out);
    merge(out, start);
  }

  void encode_bytes(std::string_view piece, std::vector<int32_t>& out) const override {
    if (ignore_merges_) {
      if (const int32_t whole = vocabulary_.find(map_bytes(piece)); whole >= 0)
        return out.push_back(whole);
    }
    const size_t start = out.size();
    if (!prefix_.empty() || !suffix_.empty()) {
      characters(map_bytes(piece), out);
    } else {
      for (const char c : piece) {
        const int32_t id = character_ids_[static_cast<unsigned char>(c)];
        if (id < 0) {  // Not in the vocabulary: the general way knows what to do.
          out.resize(start);
          characters(map_bytes(piece), out);
          break;
        }
        out.push_back(id);
      }
    }
    merge(out, start);
  }

 private:
  void read_merges(const TokenizerFile& file, const std::string& where) {
    if (!file.has_merges) throw_bad_input(cat(where, ": a BPE model without merges"));
    merges_.reserve(file.merge_places.size());
    std::string both;
    int32_t rank = 0;
    for (const auto& [left, right] : file.merges()) {
      const int32_t a = vocabulary_.find(left), b = vocabulary_.find(right);
      both.assign(left);
      both +=
          prefix_.empty() || right.size() < prefix_.size() ? right : right.substr(prefix_.size());
      const int32_t result = vocabulary_.find(both);
      if (a < 0 || b < 0 || result < 0) {
        const std::string_view missing = a < 0 ? left : b < 0 ? right : std::string_view(both);
        throw_bad_input(cat(where, ": merge ", rank, " needs the token ",
                            Json(std::string(missing)).dump(), ", which is not in the vocabulary"));
      }
      merges_.add(a, b, rank++, result);
    }
    merge_count_ = rank;
  }

  /// The first symbols of a piece: one a character, bytes or the unknown token for characters
  /// outside the vocabulary.
  void characters(std::string_view piece, std::vector<int32_t>& out) const {
    bool pending = false;  // An unknown token not yet written, so that it can fuse with the next.
    std::string decorated;
    for (size_t at = 0; at < piece.size();) {
      const size_t start = at;
      unicode::next(piece, at);
      std::string_view text = piece.substr(start, at - start);
      if (!prefix_.empty() || !suffix_.empty()) {
        decorated = start == 0 ? "" : prefix_;
        decorated += text;
        if (at == piece.size()) decorated += suffix_;
        text = decorated;
      }
      if (const int32_t id = vocabulary_.find(text); id >= 0) {
        if (std::exchange(pending, false)) out.push_back(unknown_);
        out.push_back(id);
      } else if (!fall_back(text, out)) {
        if (!unknown_missing_.empty()) {
          throw_bad_input(cat("the tokenizer's unknown token ", Json(unknown_missing_).dump(),
                              " is not in its vocabulary"));
        }
        if (unknown_ < 0)
          continue;  // Without an unknown token the character is lost, in Hugging Face's library
                     // too.
        if (pending && !fuse_unknown_) out.push_back(unknown_);
        pending = true;
      }
    }
    if (pending) out.push_back(unknown_);
  }

  bool fall_back(std::string_view text, std::vector<int32_t>& out) const {
    if (!byte_fallback_) return false;
    const auto id = [&](char c) { return fallback_ids_[static_cast<unsigned char>(c)]; };
    if (std::any_of(text.begin(), text.end(), [&](char c) { return id(c) < 0; })) return false;
    for (const char c : text) out.push_back(id(c));
    return true;
  }

  void merge(std::vector<int32_t>& symbols, size_t start) const {
    const size_t count = symbols.size() - start;
    if (count < 2) return;
    if (count <= kShort)
      merge_short(symbols, start);
    else
      merge_long(symbols, start);
  }

  void merge_short(std::vector<int32_t>& symbols, size_t start) const {
    struct Pair {
      int32_t rank, result;
    };
    std::array<Pair, kShort>
        pairs;  // pairs[i]: how symbols i and i + 1 merge; a rank above all if they do not.
    constexpr int32_t kNever = 0x7fffffff;
    int32_t* s = symbols.data() + start;
    size_t count = symbols.size() - start;
    const auto look = [&](size_t i) {
      const Merges::Entry* entry = merges_.find(s[i], s[i + 1]);
      pairs[i] = entry == nullptr ? Pair{kNever, kNone} : Pair{entry->rank, entry->result};
    };
    for (size_t i = 0; i + 1 < count; ++i) look(i);
    while (count > 1) {
      size_t best = 0;
      for (size_t i = 1; i + 1 < count; ++i) {
        if (pairs[i].rank < pairs[best].rank) best = i;
      }
      if (pairs[best].rank == kNever) break;
      s[best] = pairs[best].result;
      std::copy(s + best + 2, s + count, s + best + 1);
      if (best + 2 < count)
        std::copy(pairs.begin() + best + 2, pairs.begin() + count - 1, pairs.begin() + best + 1);
      --count;
      if (best > 0) look(best - 1);
      if (best + 1 < count) look(best);
    }
    symbols.resize(start + count);
  }

  void merge_long(std::vector<int32_t>& symbols, size_t start) const {
    constexpr uint32_t kEnd = ~0u;
    struct Link {
      uint32_t previous, next;
    };
    if (symbols.size() - start >= kEnd) throw_unsupported("a piece of text of over 4 GB");
    const auto count = static_cast<uint32_t>(symbols.size() - start);
    int32_t* s = symbols.data() + start;
    std::vector<Link> links(count);
    for (uint32_t i = 0; i < count; ++i)
      links[i] = {i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1};
    thread_local MergeQueue queue;
    queue.open(static_cast<size_t>(merge_count_));
    uint64_t steps = count;
    const auto offer = [&](uint32_t left) {
      const Merges::Entry* entry = merges_.find(s[left], s[links[left].next]);
      if (entry != nullptr) queue.push(*entry, left);
    };
    for (uint32_t i = 0; i + 1 < count; ++i) offer(i);
    Merges::Entry entry;
    for (uint32_t left; queue.pop(entry, left);) {
      ++steps;
      // Stale if one of the two has merged with another since.
      const uint32_t right = links[left].next;
      if (right == kEnd || s[left] != static_cast<int32_t>(entry.key >> 32) ||
          s[right] != static_cast<int32_t>(entry.key & 0xffffffffu))
        continue;
      s[left] = entry.result;
      s[right] = kNone;
      const uint32_t next = links[left].next = links[right].next;
      if (next != kEnd) links[next].previous = left;
      if (links[left].previous != kEnd) offer(links[left].previous);
      if (next != kEnd) offer(left);
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != kEnd; i = links[i].next) s[kept++] = s[i];
    symbols.resize(start + kept);
    merge_steps() += steps;
  }

  Vocabulary vocabulary_;
  Merges merges_;
  int32_t merge_count_ = 0;  // Ranks are below it.
  std::string prefix_, suffix_, unknown_missing_;
  int32_t unknown_ = kNone;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
  std::array<int32_t, 256> character_ids_, fallback_ids_;
};

}  // namespace

std::unique_ptr<TokenModel> make_bpe(TokenizerFile& file, const std::string& where) {
  return std::make_unique<Bpe>(file, where);
}

}  // namespace slmc::tokenization
