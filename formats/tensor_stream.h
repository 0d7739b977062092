// Moving one tensor from an open model into a writer, a piece at a time, by plain rounding.
#pragma once

#include <string>

#include "formats/model.h"
#include "formats/model_writer.h"

namespace slmc {

/// Writes tensor `name` as `dtype`; bytes are copied when it has that type already. Encoding runs
/// on all threads; the bytes do not depend on their number. Resident memory stays under about 100
/// MB: the source's pages are dropped behind. Throws Error(kBadInput) for a value that is not
/// finite where the new type cannot hold such, Error(kUnsupported) for one too large for it.
void write_converted(const Model& model, const std::string& name, DType dtype, ModelWriter& writer);

/// Writes a whole tensor as `dtype`, from values of any type, in one piece.
void write_view(const TensorView& view, const std::string& name, DType dtype, ModelWriter& writer);

/// Encodes rows of `columns` finite floats, [count, columns], into `out`. `where` names the tensor
/// and `first_row` its first row for errors.
void encode_rows(DType dtype, const float* in, int64_t count, int64_t columns, std::byte* out,
                 const std::string& where, int64_t first_row = 0);

}  // namespace slmc
