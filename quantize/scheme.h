// A scheme: a named mix that says which type each tensor gets and why. One file under
// quantize/schemes/ defines `const Scheme& slmc::scheme_<file>()`; the build finds it.
#pragma once

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

struct Scheme {
  std::string name;     ///< "q4_0": the value of --scheme.
  std::string summary;  ///< One line for --help.
  /// The type of one matrix (two dimensions or more). Vectors never come here: norms and biases
  /// stay f32, as llama.cpp needs them.
  TypeChoice (*choose)(const TensorInfo& tensor, const Architecture& arch) = nullptr;
};

/// All schemes, in order of name.
const std::vector<const Scheme*>& schemes();
/// Throws Error(kUsage) naming the nearest known scheme.
const Scheme& scheme_by_name(const std::string& name);
std::vector<std::string> scheme_names();

/// True for the tensor that gives the logits: `output.weight`, or `token_embd.weight` when the head
/// is tied to it.
bool is_output_head(const TensorInfo& tensor, const Architecture& arch);

/// `wanted`, or f16 with the reason when the tensor's rows do not divide into the type's blocks
/// (what llama.cpp does for the types of blocks of 32).
TypeChoice fitting_or_f16(DType wanted, const std::string& reason, const TensorInfo& tensor);

}  // namespace slmc
