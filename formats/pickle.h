// A reader of Python pickles that can only build tensors: dictionaries, lists, numbers, texts, and
// the few calls by which torch.save writes a tensor. Any other global is refused by its name, and
// nothing is ever executed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/tensor.h"

namespace slmc {

/// A tensor as the pickle describes it.
struct PickledTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::string storage;  ///< Name of the bytes that it is part of.
  uint64_t storage_elements = 0;
  uint64_t first = 0;  ///< Element of the storage with which it begins.
  std::vector<int64_t> shape, strides;
};

/// The tensors of a pickled state dict ({name: tensor}). Throws Error(kBadInput) naming `where` and
/// the byte offset, and Error(kUnsupported) naming what a tensor does not need: a global, an
/// opcode, a storage type.
std::vector<PickledTensor> read_pickled_tensors(std::string_view pickle, const std::string& where);

}  // namespace slmc
