// The vocabulary guard: teacher and student must mean the same by every id. Sizes may differ by
// padding only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "distill/data.h"
#include "distill/student.h"
#include "formats/model.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {

struct Vocabulary {
  std::shared_ptr<const Tokenizer> tokenizer;
  Assets assets;     ///< What is written beside the student.
  int64_t size = 0;  ///< Ids that stand for a token; rows beyond are padding.
};

/// The tokenizer of a run: that of `path` if given, else the student's checkpoint's, else the
/// teacher's. All of those present must agree, token by token. `teacher` may be null. Throws
/// Error(kUnsupported) naming the first id that differs, Error(kBadInput) if a model has too few
/// rows.
Vocabulary shared_vocabulary(const std::string& path, const Model* teacher, const Student& student);

/// The tokens that an embedding of so many rows has: special ones may lie beyond it (Gemma 3's for
/// images). Throws Error(kBadInput) naming `where` for others there.
int64_t tokens_with_rows(const Tokenizer& tokenizer, int64_t rows, const std::string& where);

/// Throws Error(kBadInput) if an id is not below `size`.
void check_ids(const PackedData& data, int64_t size);

}  // namespace slmc
