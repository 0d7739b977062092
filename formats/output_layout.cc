#include "formats/output_layout.h"

#include <algorithm>
#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/kv_scales.h"

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

uint64_t OutputLayout::offset(const OutputSlot& slot) const {
  const StoredTensor& whole = stored[slot.stored];
  if (slot.layout.rows == 0 || slot.layout.transposed) return whole.offset;
  return whole.offset + whole.bytes / static_cast<uint64_t>(slot.layout.rows) *
                            static_cast<uint64_t>(slot.layout.first_row);
}

namespace {

void check_type(const OutputSpec& spec, const OutputTensor& tensor) {
  if (container_dtype(spec.path, tensor.name, tensor.shape, tensor.dtype) == tensor.dtype) return;
  throw_unsupported(cat(spec.path, ": tensor ", tensor.name, ": ",
                        is_gguf_path(spec.path) ? "a GGUF keeps this tensor in f32"
                                                : "a safetensors folder holds f32, f16, bf16 and "
                                                  "compressed-tensors",
                        ", not ", dtype_name(tensor.dtype)));
}

uint64_t bytes_of(DType dtype, const std::vector<int64_t>& shape, const std::string& name) {
  return checked_multiply(dtype_row_bytes(dtype, shape.back()),
                          static_cast<uint64_t>(element_count(shape) / shape.back()), name);
}

/// The file's tensors for a canonical one, or for all that are fused with it.
std::vector<StoredTensor> stored_tensors(const OutputTensor& tensor, const FilePlace& place,
                                         const std::vector<int64_t>& shape,
                                         const std::optional<GroupWeight>& group) {
  if (!group) {
    return {{.name = place.name,
             .dtype = tensor.dtype,
             .shape = shape,
             .bytes = bytes_of(tensor.dtype, shape, tensor.name),
             .holds = tensor.dtype}};
  }
  std::vector<StoredTensor> stored;
  const std::string stem = place.name.substr(0, place.name.rfind('.') + 1);
  for (const GroupPart& part : group->parts) {
    stored.push_back({.name = stem + part.suffix,
                      .dtype = part.dtype,
                      .shape = part.shape,
                      .bytes = part.bytes,
                      .holds = tensor.dtype});
  }
  return stored;
}

std::optional<GroupWeight> group_of(const OutputSpec& spec, const OutputTensor& tensor,
                                    const FilePlace& place, const std::vector<int64_t>& shape) {
  if (!is_group_type(tensor.dtype)) return {};
  if (place.transposed || !place.name.ends_with(".weight")) {
    throw_unsupported(cat(spec.path, ": tensor ", tensor.name, ": ", dtype_name(tensor.dtype),
                          " of compressed-tensors is for linear layers, and ", place.name,
                          " is none in this family's folders; choose a type of GGUF"));
  }
  return group_weight(tensor.dtype, shape, place.first_row, tensor.shape[0], DType::kBF16,
                      written_packed(tensor.dtype), tensor.name);
}

/// Adds a canonical tensor, to a stored one of its own or to the one it shares with others.
void add_slot(const OutputSpec& spec, const TensorSpec& expected, const OutputTensor& tensor,
              const FilePlace& place, OutputLayout& layout) {
  size_t index = layout.stored.size();
  for (const OutputSlot& slot : layout.slots) {
    if (place.first_row > 0 && slot.layout.name == place.name) index = slot.stored;
  }
  const std::vector<int64_t> shape = stored_shape(expected, place);
  const std::optional<GroupWeight> group = group_of(spec, tensor, place, shape);
  if (index == layout.stored.size()) {
    for (StoredTensor& stored : stored_tensors(tensor, place, shape, group))
      layout.stored.push_back(std::move(stored));
  }
  if (layout.stored[index].holds != tensor.dtype) {
    throw_unsupported(cat(spec.path, ": tensor ", tensor.name, ": ", dtype_name(tensor.dtype),
                          ", but it is a part of ", place.name, ", of which the rest is ",
                          dtype_name(layout.stored[index].holds),
                          "; give the parts of a fused tensor one type"));
  }
  layout.slots.push_back({.tensor = tensor,
                          .layout = place,
                          .stored = index,
                          .bytes = bytes_of(tensor.dtype, tensor.shape, tensor.name),
                          .group = group});
}

}  // namespace

OutputLayout output_layout(const OutputSpec& spec, const std::vector<std::string>& hashes) {
  const Family& family = family_by_name(spec.arch.family);
  const bool gguf = is_gguf_path(spec.path);
  std::map<std::string, const OutputTensor*> given;
  for (const OutputTensor& tensor : spec.tensors) {
    SLMC_CHECK(given.emplace(tensor.name, &tensor).second,
               cat("tensor ", tensor.name, " is given twice"));
  }
  OutputLayout layout;
  for (const TensorSpec& expected : family.tensors(spec.arch)) {
    const auto found = given.find(expected.name);
    SLMC_CHECK(found != given.end(), cat("tensor ", expected.name, " is not given to the writer"));
    const OutputTensor& tensor = *found->second;
    SLMC_CHECK(tensor.shape == expected.shape,
               cat("tensor ", tensor.name, ": expected shape ", shape_text(expected.shape),
                   ", given ", shape_text(tensor.shape)));
    check_type(spec, tensor);
    add_slot(spec, expected, tensor, gguf ? expected.gguf : expected.hf, layout);
    if (!gguf) layout.slots.back().layout.shift = 0;
  }
  SLMC_CHECK(layout.slots.size() == given.size(),
             cat("the writer was given ", given.size(), " tensors, the architecture has ",
                 layout.slots.size()));
  if (gguf) {
    gguf_layout(spec, family, hashes, layout);
    return layout;
  }
  const auto carry = [&layout](const std::vector<CarriedTensor>& tensors) {
    for (const CarriedTensor& tensor : tensors) {
      layout.stored.push_back({.name = tensor.name,
                               .dtype = tensor.view.dtype,
                               .shape = tensor.view.shape,
                               .bytes = tensor.view.bytes(),
                               .carried = &tensor});
    }
  };
  carry(spec.assets.carried);
  const auto group = std::find_if(layout.slots.begin(), layout.slots.end(),
                                  [](const OutputSlot& slot) { return slot.group.has_value(); });
  if (group != layout.slots.end() && !spec.arch.kv_scales.empty()) {
    layout.made = kv_scale_tensors(family, spec.arch, group->group->scale_type);
    carry(layout.made);
  }
  safetensors_layout(spec, family, hashes, layout);
  return layout;
}

uint64_t predicted_output_bytes(const OutputSpec& spec) { return output_layout(spec).total(); }

bool gguf_keeps_f32(const std::string& name, const std::vector<int64_t>& shape) {
  return shape.size() == 1 || name == "position_embd.weight" || name == "token_types.weight";
}

DType container_dtype(const std::string& path, const std::string& name,
                      const std::vector<int64_t>& shape, DType wanted) {
  if (!is_gguf_path(path)) {
    if (dtype_is_float(wanted) || (is_group_type(wanted) && shape.size() == 2)) return wanted;
    throw_unsupported(
        cat(path, ": a safetensors folder holds f32, f16, bf16 and compressed-tensors, not ",
            dtype_name(wanted), "; name the output *.gguf or choose another type"));
  }
  if (is_group_type(wanted))
    throw_unsupported(cat(path, ": a GGUF has no ", dtype_name(wanted),
                          "; name a folder, or choose one of GGUF's types"));
  return gguf_keeps_f32(name, shape) ? DType::kF32 : wanted;
}

}  // namespace slmc
