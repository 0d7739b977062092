#include "formats/output_layout.h"

#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

uint64_t OutputLayout::total() const {
  uint64_t bytes = 0;
  for (const OutputFile& file : files) bytes += file.size;
  for (const auto& [name, text] : texts) bytes += text.size();
  return bytes;
}

bool is_gguf_path(const std::string& path) { return path.size() > 5 && path.ends_with(".gguf"); }

std::string join_hashes(const std::vector<OutputSlot>& slots,
                        const std::vector<std::string>& hashes) {
  std::string text;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (i > 0) text += ",";
    text += slots[i].tensor.name + "=" + (hashes.empty() ? std::string(32, '0') : hashes[i]);
  }
  return text;
}

OutputLayout output_layout(const OutputSpec& spec, const std::vector<std::string>& hashes) {
  const Family& family = family_by_name(spec.arch.family);
  const bool gguf = is_gguf_path(spec.path);
  std::map<std::string, const OutputTensor*> given;
  for (const OutputTensor& tensor : spec.tensors) {
    SLMC_CHECK(given.emplace(tensor.name, &tensor).second,
               cat("tensor ", tensor.name, " is given twice"));
  }
  std::vector<OutputSlot> slots;
  for (const TensorSpec& expected : family.tensors(spec.arch)) {
    const auto found = given.find(expected.name);
    SLMC_CHECK(found != given.end(), cat("tensor ", expected.name, " is not given to the writer"));
    const OutputTensor& tensor = *found->second;
    SLMC_CHECK(tensor.shape == expected.shape,
               cat("tensor ", tensor.name, ": expected shape ", shape_text(expected.shape),
                   ", given ", shape_text(tensor.shape)));
    if (container_dtype(spec.path, tensor.shape, tensor.dtype) != tensor.dtype) {
      throw_unsupported(
          cat(spec.path, ": tensor ", tensor.name, ": ",
              gguf ? "a GGUF keeps vectors in f32" : "a safetensors folder holds f32, f16 and bf16",
              ", not ", dtype_name(tensor.dtype)));
    }
    OutputSlot slot;
    slot.tensor = tensor;
    slot.bytes = checked_multiply(
        dtype_row_bytes(tensor.dtype, tensor.shape.back()),
        static_cast<uint64_t>(element_count(tensor.shape) / tensor.shape.back()), tensor.name);
    if (gguf && expected.gguf_rows == GgufRows::kRopePairs) {
      slot.rows = expected.gguf_rows;
      slot.heads = expected.heads;
    }
    slots.push_back(std::move(slot));
  }
  SLMC_CHECK(slots.size() == given.size(), cat("the writer was given ", given.size(),
                                               " tensors, the architecture has ", slots.size()));
  return gguf ? gguf_layout(spec, family, std::move(slots), hashes)
              : safetensors_layout(spec, family, std::move(slots), hashes);
}

uint64_t predicted_output_bytes(const OutputSpec& spec) { return output_layout(spec).total(); }

DType container_dtype(const std::string& path, const std::vector<int64_t>& shape, DType wanted) {
  if (!is_gguf_path(path)) {
    if (dtype_is_float(wanted)) return wanted;
    throw_unsupported(cat(path, ": a safetensors folder holds f32, f16 and bf16, not ",
                          dtype_name(wanted), "; name the output *.gguf or choose another type"));
  }
  return shape.size() == 1 ? DType::kF32 : wanted;
}

}  // namespace slmc
