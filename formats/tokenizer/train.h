// Training a tokenizer with someone watching; formats/tokenizer/tokenizer.h has the plain call.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "formats/tokenizer/tokenizer.h"

namespace slmc {

/// As train_bpe of tokenizer.h. `watch` is called after each document (0) and each merge, with the
/// tokens there are; it may throw to stop the training.
std::string train_bpe(const std::vector<std::string>& documents, const BpeTrainingOptions& options,
                      const std::function<void(int64_t)>& watch);

}  // namespace slmc
