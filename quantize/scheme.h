// A scheme: a named mix that says which type each tensor gets and why. One file under
// quantize/schemes/ defines `const Scheme& slmc::scheme_<file>()`; the build finds it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/tensor.h"
#include "formats/architecture.h"
#include "formats/model.h"

namespace slmc {

struct TypeChoice {
  DType type = DType::kF32;
  std::string reason;        ///< A plan row's reason.
  bool substituted = false;  ///< Not what the mix would give if it could.
};

/// What a matrix does in its model, as far as llama.cpp's mixes tell matrices apart. kValues is
/// attn_v, and attn_qkv where the file fuses it.
enum class MatrixPart { kHead, kEmbedding, kFixed, kValues, kOutput, kFfnDown, kOther };

/// A matrix and its place.
struct MatrixRole {
  MatrixPart part = MatrixPart::kOther;
  int64_t layer = 0, layers = 1;
  int64_t heads_per_kv = 1;  ///< Query heads that share a key and value head.
  bool weighted = false;     ///< Rounding will weigh errors by statistics of the inputs.

  /// Parts whose errors llama.cpp found to cost most.
  bool sensitive() const { return part == MatrixPart::kValues || part == MatrixPart::kFfnDown; }
  /// The first and last eighth of the layers and every third between.
  bool in_more_bits_layer() const {
    const int64_t eighth = layers / 8;
    return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
  }
};

struct Scheme {
  std::string name;        ///< "q4_0": the value of --scheme.
  std::string summary;     ///< One line for --help.
  DType type;              ///< Of most matrices.
  uint32_t file_type = 0;  ///< llama.cpp's number for the mix: general.file_type.
  /// The type of a matrix in a layer where the mix has exceptions; null where all are `type`.
  DType (*choose)(const MatrixRole& role) = nullptr;
};

/// All schemes, in order of name.
const std::vector<const Scheme*>& schemes();
/// Throws Error(kUsage) naming the nearest known scheme.
const Scheme& scheme_by_name(const std::string& name);
std::vector<std::string> scheme_names();

/// The role of a matrix (two dimensions or more).
MatrixRole matrix_role(const TensorInfo& tensor, const Architecture& arch, bool weighted);

/// The type of one matrix, with llama.cpp's exceptions: the head (or the embedding tied to it) in
/// q6_k, position and type embeddings in f32, and substitutes for rows that do not divide into the
/// wanted type's blocks.
TypeChoice choose_type(const Scheme& scheme, const TensorInfo& tensor, const Architecture& arch,
                       bool weighted);

}  // namespace slmc
