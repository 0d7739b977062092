// How a group-quantized weight lies in a safetensors folder in the compressed-tensors formats
// pack-quantized and int-quantized: several tensors in place of one, and a part of config.json.
// Source: compressed-tensors, pack_quantized and naive_quantized.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compress/core/json.h"
#include "compress/core/tensor.h"
#include "formats/group_types.h"

namespace slmc {

/// One tensor in the file of a weight "X.weight".
struct GroupPart {
  std::string suffix;  ///< Behind "X.": "weight_packed".
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
};

/// A weight, alone or fused with others, and the tensors in the file that hold it.
struct GroupWeight {
  DType type = kI4_G128;
  std::vector<int64_t> shape;       ///< Of the whole that the file has, [out, in].
  int64_t first_row = 0;            ///< Of this weight in the whole.
  DType scale_type = DType::kBF16;  ///< f16 or bf16.
  bool packed = true;               ///< pack-quantized, else int-quantized.
  std::vector<GroupPart> parts{};
};

/// The parts in the file's order: codes, weight_scale, then weight_zero_point, weight_shape and
/// input_scale where the format has them. Throws Error(kUnsupported) naming `tensor` where the
/// whole's columns do not divide or the weight's rows cannot be packed apart from the others'.
GroupWeight group_weight(DType type, const std::vector<int64_t>& shape, int64_t first_row,
                         int64_t rows, DType scale_type, bool packed, const std::string& tensor);
/// What slmc writes: pack-quantized unless inputs are rounded, which only int-quantized allows.
bool written_packed(DType type);

/// Gives `bytes` bytes of a part, from `at` on; valid until the caller's call returns.
using PartReader = std::function<const std::byte*(size_t part, uint64_t at, uint64_t bytes)>;
using PartWriter =
    std::function<void(size_t part, uint64_t at, const std::byte* data, uint64_t bytes)>;

/// Writes rows [row, row + count) of the weight, given as slmc's blocks. `rows`: how many the
/// weight has; `zeros`: its zero points so far, kept by the caller, since they are packed across
/// rows.
void write_group_rows(const GroupWeight& weight, int64_t rows, int64_t row, int64_t count,
                      const std::byte* blocks, std::vector<uint8_t>& zeros, const PartWriter& put);
/// The reverse. Throws Error(kUnsupported) at a scale that slmc's blocks cannot hold (f16).
void read_group_rows(const GroupWeight& weight, int64_t row, int64_t count, const PartReader& get,
                     std::byte* blocks);

/// "quantization_config" for weights of these types; `ignored`: Hugging Face names of linear layers
/// that keep a float type; `cache`: keys and values are kept in 8 bits with fixed scales. Throws
/// Error(kUnsupported) if the types differ.
Json group_config(const std::vector<DType>& types, const std::vector<std::string>& ignored,
                  bool cache);
/// Refuses a checkpoint that is quantized in another way than slmc reads: one group, integers, a
/// cache of 8 bits with a scale a tensor, no rounded outputs. Throws Error(kUnsupported).
void check_quantization_config(const Json& config, const std::string& where);
/// True if the checkpoint has fixed scales of keys and values (formats/kv_scales.h).
bool fixes_cache(const Json& config);
/// Columns that share a scale in a quantized checkpoint; 0: the row.
int64_t weight_group(const Json& config);
/// How the inputs of a quantized checkpoint's layers are rounded.
InputRounding input_rounding(const Json& config);

}  // namespace slmc
