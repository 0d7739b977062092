// Fixed steps of keys and values that are kept in 8 bits, as compressed-tensors' kv_cache_scheme
// has them: a tensor k_scale and a tensor v_scale beside each layer's projections.
#pragma once

#include <string>
#include <vector>

#include "formats/family.h"
#include "formats/model.h"

namespace slmc {

/// Where a folder of the family has them: keys and values of layer 0, of layer 1 ...
std::vector<std::string> kv_scale_names(const Family& family, const Architecture& arch);
/// One of them, as found. Throws Error naming `where` unless it is one positive, finite number.
float read_kv_scale(const TensorView& tensor, const std::string& where);
/// `arch.kv_scales` as a folder's tensors of `dtype` (f16 or bf16).
std::vector<CarriedTensor> kv_scale_tensors(const Family& family, const Architecture& arch,
                                            DType dtype);

}  // namespace slmc
