// Whether two models speak of the same tokens: distributions over different vocabularies must never
// be compared.
#pragma once

#include "formats/model.h"

namespace slmc {

/// Number of real tokens: ids below it stand for text, rows beyond it are padding.
int64_t real_vocabulary(const Model& model);
/// The real vocabulary of both. Throws Error(kBadInput) naming the first id whose token differs, or
/// the sizes.
int64_t common_vocabulary(const Model& model, const Model& against);

}  // namespace slmc
