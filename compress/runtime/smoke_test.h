// The last proof that a written file is what was meant: the runtime gives finite logits with it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"

namespace slmc {

/// 32 tokens, or as many as the context holds, spread over the vocabulary.
std::vector<int32_t> smoke_tokens(const WeightSource& model);
/// The logits [ids, vocab] of these tokens; of an encoder what its head gives. A decoder runs piece
/// by piece (a block, some rows of the head) with one resident, to the bits of Decoder::forward in
/// f32; whole only where a tuned prompt comes first.
std::vector<float> smoke_logits(const WeightSource& model, std::span<const int32_t> ids);
/// Throws Error(kBug) if one of them is not finite.
void smoke_test(const Model& model);
/// Peak bytes of either for the model that the rows of a plan will make, over what the program
/// itself takes.
uint64_t smoke_test_bytes(const Architecture& arch, const std::vector<PlanRow>& rows);

}  // namespace slmc
