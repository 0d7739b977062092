// The last proof that a written file is what was meant: the runtime gives finite logits with it.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"

namespace slmc {

/// The logits [tokens, vocab] of 32 tokens, or of as many as the context holds, spread over the
/// vocabulary; of an encoder what its head gives. A decoder runs piece by piece (a block, some rows
/// of the head) with one resident, to the bits of Decoder::forward in f32.
std::vector<float> smoke_logits(const WeightSource& model);
/// Throws Error(kBug) if one of them is not finite.
void smoke_test(const Model& model);
/// Peak bytes of either for the model that the rows of a plan will make, over what the program
/// itself takes.
uint64_t smoke_test_bytes(const Architecture& arch, const std::vector<PlanRow>& rows);

}  // namespace slmc
