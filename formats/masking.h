// Which tokens of a sequence a masked language model is to guess (Devlin et al. 2018, 3.1): some of
// them, of which most become the mask token, some another token, and some stay.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/tokenizer/tokenizer.h"

namespace slmc {

struct Masking {
  static constexpr double kShare = 0.15;  ///< Of the tokens that may be chosen.
  static constexpr double kMasked = 0.8;  ///< Of the chosen ones: become the mask token.
  static constexpr double kRandom = 0.1;  ///< Become any token; the others stay.
  int32_t mask = -1;                      ///< -1: nothing is masked.
  std::vector<uint8_t> special{};         ///< By token id: is never chosen.
  uint64_t seed = 0;
};

/// By the tokenizer's mask token ("mask_token" of its configuration, "[MASK]" or "<mask>"). Throws
/// Error(kUnsupported) naming `where` if it has none.
Masking masking_of(const Tokenizer& tokenizer, const Assets& assets, uint64_t seed,
                   const std::string& where);

/// Masks `ids` in place, by stream `stream` of the seed, and sets chosen[i] where id i is to be
/// guessed. `candidates` [ids] may be null: all are. Each token is chosen by itself.
void mask_tokens(const Masking& masking, uint64_t stream, std::span<int32_t> ids,
                 const uint8_t* candidates, uint8_t* chosen);

}  // namespace slmc
