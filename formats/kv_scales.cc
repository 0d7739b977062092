#include "formats/kv_scales.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"

namespace slmc {

std::vector<std::string> kv_scale_names(const Family& family, const Architecture& arch) {
  std::vector<std::string> names(static_cast<size_t>(2 * arch.layers));
  for (const TensorSpec& spec : family.tensors(arch)) {
    if (!spec.name.ends_with(".attn_k.weight")) continue;
    // model.layers.3.self_attn.k_proj.weight: the attention is two steps up.
    const size_t projection = spec.hf.name.rfind('.', spec.hf.name.rfind('.') - 1);
    const std::string stem = spec.hf.name.substr(0, projection + 1);
    const auto layer = static_cast<size_t>(std::stoll(spec.name.substr(4)));
    names[2 * layer] = stem + "k_scale";
    names[2 * layer + 1] = stem + "v_scale";
  }
  return names;
}

float read_kv_scale(const TensorView& tensor, const std::string& where) {
  if (!dtype_is_float(tensor.dtype) || element_count(tensor.shape) != 1) {
    throw_unsupported(cat(where, ": expected one float, found ", dtype_name(tensor.dtype), " ",
                          shape_text(tensor.shape)));
  }
  float scale = 0;
  block_codec(tensor.dtype).decode(tensor.data, 1, &scale);
  if (!std::isfinite(scale) || scale <= 0)
    throw_bad_input(cat(where, " is ", scale, "; expected a positive, finite scale"));
  return scale;
}

std::vector<CarriedTensor> kv_scale_tensors(const Family& family, const Architecture& arch,
                                            DType dtype) {
  SLMC_CHECK(dtype == DType::kF16 || dtype == DType::kBF16, "scales are kept in 16 bits");
  std::vector<CarriedTensor> tensors;
  const std::vector<std::string> names = kv_scale_names(family, arch);
  for (size_t i = 0; i < arch.kv_scales.size(); ++i) {
    const float scale = arch.kv_scales[i];
    const uint16_t bits = dtype == DType::kF16 ? float_to_f16(scale) : float_to_bf16(scale);
    const auto bytes = std::make_shared<std::vector<std::byte>>(sizeof bits);
    std::memcpy(bytes->data(), &bits, sizeof bits);
    tensors.push_back({names.at(i), {bytes->data(), dtype, {1}, bytes}});
  }
  return tensors;
}

}  // namespace slmc
