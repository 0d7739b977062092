// What commonly makes calibration worthless, found before hours are spent on it.
#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_set>

#include "compress/core/hash.h"
#include "compress/core/text.h"
#include "formats/tokenizer/tokenizer.h"
#include "quantize/calibration.h"

namespace slmc {
namespace {

int64_t widest_input(const Model& model) {
  int64_t widest = 0;
  for (const TensorInfo& info : model.tensors()) {
    if (info.shape.size() >= 2) widest = std::max(widest, info.shape.back());
  }
  return widest;
}

/// The share of pieces of 32 tokens that were there before, at any place of a window.
double repeated_share(const CalibrationData& data) {
  constexpr size_t kPiece = 32;
  std::unordered_set<uint64_t> seen;
  int64_t pieces = 0, again = 0;
  for (const std::vector<int32_t>& window : data.windows) {
    std::vector<uint64_t> here;
    uint64_t hash = 0;
    constexpr uint64_t kBase = 0x9E3779B97F4A7C15ull;
    uint64_t power = 1;  // kBase^kPiece: what leaves the rolling hash.
    for (size_t i = 0; i < kPiece; ++i) power *= kBase;
    for (size_t i = 0; i < window.size(); ++i) {
      hash = hash * kBase + static_cast<uint64_t>(window[i]) + 1;
      if (i >= kPiece) hash -= power * (static_cast<uint64_t>(window[i - kPiece]) + 1);
      if (i + 1 < kPiece) continue;
      ++pieces;
      if (seen.count(hash) > 0) ++again;
      here.push_back(hash);
    }
    seen.insert(here.begin(), here.end());
  }
  return pieces == 0 ? 0.0 : static_cast<double>(again) / static_cast<double>(pieces);
}

/// Letters by the blocks of Unicode that tell scripts apart roughly.
struct Scripts {
  std::array<int64_t, 6> letters{};  // Latin, Cyrillic, Arabic, Indic, East Asian, other.

  void add(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
      const auto lead = static_cast<unsigned char>(text[i]);
      const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      if (i + length > text.size()) return;
      uint32_t code = length == 1 ? lead : lead & (0xFFu >> (length + 1));
      for (size_t k = 1; k < length; ++k)
        code = code << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3Fu);
      i += length;
      const auto in = [code](uint32_t low, uint32_t high) { return code >= low && code <= high; };
      if (in('a', 'z') || in('A', 'Z') || in(0xC0, 0x24F)) {
        ++letters[0];
      } else if (in(0x400, 0x52F)) {
        ++letters[1];
      } else if (in(0x590, 0x8FF)) {
        ++letters[2];
      } else if (in(0x900, 0xDFF)) {
        ++letters[3];
      } else if (in(0x2E80, 0xD7AF)) {
        ++letters[4];
      } else if (code >= 0x250 && !in(0x2000, 0x2BFF)) {
        ++letters[5];
      }
    }
  }
};

bool one_script_only(const CalibrationData& data, const Tokenizer& tokenizer) {
  Scripts scripts;
  for (const std::vector<int32_t>& window : data.windows)
    scripts.add(tokenizer.decode(window, true));
  int64_t all = 0;
  for (const int64_t count : scripts.letters) all += count;
  const int64_t most = *std::max_element(scripts.letters.begin(), scripts.letters.end());
  return all > 0 && static_cast<double>(most) > 0.995 * static_cast<double>(all);
}

}  // namespace

std::vector<std::string> lint_calibration(const CalibrationData& data, const Model& model,
                                          bool any_chat) {
  std::vector<std::string> findings;
  const Tokenizer& tokenizer = model.tokenizer();
  const int64_t widest = widest_input(model);
  if (data.tokens < 4 * widest) {
    findings.push_back(cat("Calibration has ", data.tokens, " tokens for layers of up to ", widest,
                           " inputs; below ", 4 * widest,
                           " the inputs' correlations are poorly known."));
  }
  const int32_t bos = tokenizer.bos();
  int64_t doubled = 0;
  for (const std::vector<int32_t>& window : data.windows)
    doubled += window.size() > 1 && bos >= 0 && window[0] == bos && window[1] == bos;
  if (doubled > 0)
    findings.push_back(cat(doubled,
                           " calibration windows begin with two BOS tokens; the text holds "
                           "the token and the tokenizer adds it too."));
  if (bos >= 0 && !tokenizer.adds_bos() &&
      std::none_of(data.windows.begin(), data.windows.end(), [bos](const auto& window) {
        return std::find(window.begin(), window.end(), bos) != window.end();
      })) {
    findings.push_back(
        "The model has a BOS token that its tokenizer does not add, and the calibration text holds "
        "none; if the model is used with it, put it into the text.");
  }
  if (!model.assets().chat_template.empty() && !any_chat) {
    findings.push_back(
        "The model has a chat template and the calibration text is plain; chats as .jsonl with "
        "'messages' show it what it will see.");
  }
  const double repeated = repeated_share(data);
  if (repeated > 0.1)
    findings.push_back(cat(fixed(100 * repeated, 0),
                           "% of the calibration text repeats earlier text; repeats "
                           "teach nothing and outvote the rest."));
  if (tokenizer.vocab_size() >= 60000 && one_script_only(data, tokenizer)) {
    findings.push_back(
        "The calibration text is in one script only, and the vocabulary has many; other languages "
        "may lose more than the figures say.");
  }
  return findings;
}

}  // namespace slmc
