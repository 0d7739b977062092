// Decoders and a tokenizer whose every figure is known without a model: logits are a formula of
// what came before.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "compress/runtime/decoder.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc::testing {

class FakeCache : public KvCache {
 public:
  explicit FakeCache(int64_t capacity) : capacity_(capacity) {}
  int64_t length() const override { return static_cast<int64_t>(ids.size()); }
  int64_t capacity() const override { return capacity_; }
  void truncate(int64_t length) override { ids.resize(static_cast<size_t>(length)); }
  uint64_t bytes() const override { return static_cast<uint64_t>(capacity_) * 4; }
  std::vector<int32_t> ids;

 private:
  int64_t capacity_;
};

/// Logit of `id` after `history` (which is never empty).
using Formula = std::function<float(const std::vector<int32_t>& history, int32_t id)>;

class FakeDecoder : public Decoder {
 public:
  FakeDecoder(int64_t vocab, Formula formula, int64_t context = 4096)
      : formula_(std::move(formula)) {
    arch_.vocab = vocab;
    arch_.context = context;
  }
  const Architecture& arch() const override { return arch_; }
  Activations activations() const override { return Activations::kF32; }
  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override {
    return std::make_unique<FakeCache>(capacity);
  }
  void forward(KvCache& cache, std::span<const int32_t> ids, float* logits,
               bool last_only) const override {
    auto& own = dynamic_cast<FakeCache&>(cache);
    if (own.length() + static_cast<int64_t>(ids.size()) > own.capacity())
      throw std::runtime_error("the cache is too short");
    for (size_t i = 0; i < ids.size(); ++i) {
      own.ids.push_back(ids[i]);
      if (!logits || (last_only && i + 1 < ids.size())) continue;
      for (int32_t id = 0; id < arch_.vocab; ++id) *logits++ = formula_(own.ids, id);
    }
    ++calls;
  }
  void hidden(KvCache&, std::span<const int32_t>, float*) const override {
    throw std::runtime_error("not used");
  }
  uint64_t bytes_per_token() const override { return 0; }
  Architecture arch_;
  mutable int calls = 0;  ///< Exact when one thread runs.

 private:
  Formula formula_;
};

/// A pseudo-random logit in [-4, 4) of the whole history and the id.
inline float noisy_logit(const std::vector<int32_t>& history, int32_t id) {
  uint64_t hash = 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(id);
  for (int32_t past : history)
    hash = (hash ^ static_cast<uint64_t>(past)) * 0xff51afd7ed558ccdull + (hash >> 29);
  hash ^= hash >> 33;
  return static_cast<float>(static_cast<double>(hash >> 11) * 0x1.0p-50 - 4.0);
}

/// One id a byte; 256 is BOS, put first, 257 the end.
class ByteTokenizer : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool special) const override {
    std::vector<int32_t> ids;
    if (special) ids.push_back(256);
    for (char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  Encoding encode_pair(std::string_view first, std::string_view second,
                       bool special) const override {
    const std::vector<int32_t> texts[] = {encode(first, special), encode(second, false)};
    return joined(texts);
  }
  Encoding assemble(std::span<const std::vector<int32_t>> texts) const override {
    std::vector<std::vector<int32_t>> all(texts.begin(), texts.end());
    all[0].insert(all[0].begin(), 256);
    return joined(all);
  }
  std::string decode(std::span<const int32_t> ids, bool) const override {
    std::string text;
    for (int32_t id : ids) text += token_bytes(id);
    return text;
  }
  std::string token_bytes(int32_t id) const override {
    return id < 256 ? std::string(1, static_cast<char>(id)) : "<special>";
  }
  std::string token_text(int32_t id) const override { return token_bytes(id); }
  int32_t token_id(std::string_view text) const override {
    return text.size() == 1 ? static_cast<unsigned char>(text[0]) : -1;
  }
  int32_t vocab_size() const override { return 258; }
  bool is_special(int32_t id) const override { return id >= 256; }
  int32_t bos() const override { return 256; }
  int32_t eos() const override { return 257; }
  bool adds_bos() const override { return true; }
  bool adds_eos() const override { return false; }
  const std::string& hash() const override { return hash_; }
  bool certain(std::span<const int32_t>) const override { return true; }
  std::string decode_part(std::span<const int32_t> ids, bool, bool skip_special) const override {
    return decode(ids, skip_special);
  }

 private:
  static Encoding joined(std::span<const std::vector<int32_t>> texts) {
    Encoding out;
    for (size_t i = 0; i < texts.size(); ++i) {
      out.ids.insert(out.ids.end(), texts[i].begin(), texts[i].end());
      out.types.resize(out.ids.size(), static_cast<int32_t>(i));
    }
    return out;
  }
  std::string hash_ = "bytes";
};

/// Continues each prompt with its answer and then the end; elsewhere it ends at once.
inline FakeDecoder script_decoder(std::vector<std::pair<std::string, std::string>> scripts) {
  return FakeDecoder(
      258, [scripts = std::move(scripts)](const std::vector<int32_t>& history, int32_t id) {
        std::string text;
        for (size_t i = 1; i < history.size(); ++i) text += static_cast<char>(history[i]);
        int32_t next = 257;
        for (const auto& [prompt, answer] : scripts) {
          const std::string whole = prompt + answer;
          if (text.size() >= prompt.size() && text.size() < whole.size() && whole.starts_with(text))
            next = static_cast<unsigned char>(whole[text.size()]);
        }
        return id == next ? 9.0f : noisy_logit(history, id);
      });
}

}  // namespace slmc::testing
