#include "compress/core/error.h"
#include "compress/core/tensor.h"
#include "distill/training.h"
#include "formats/family.h"

namespace slmc {

const ParameterSlot& ParameterLayout::find(const std::string& name) const {
  for (const ParameterSlot& slot : slots)
    if (slot.name == name) return slot;
  SLMC_CHECK(false, "no parameter named " + name);
  return slots.front();
}

ParameterLayout parameter_layout(const Architecture& arch) {
  ParameterLayout layout;
  // Canonical order keeps attn_q, attn_k, attn_v and ffn_gate, ffn_up apart in some families, so
  // the order is fixed here.
  const std::vector<TensorSpec> specs = family_by_name(arch.family).tensors(arch);
  const auto add = [&](const std::string& name) {
    for (const TensorSpec& spec : specs) {
      if (spec.name != name) continue;
      ParameterSlot slot{.name = name,
                         .shape = spec.shape,
                         .offset = layout.total,
                         .size = element_count(spec.shape),
                         .decay = spec.shape.size() > 1};
      layout.total += slot.size;
      layout.slots.push_back(std::move(slot));
      return;
    }
  };
  const auto block = [](int64_t layer, const char* part) {
    return "blk." + std::to_string(layer) + "." + part;
  };
  add("token_embd.weight");
  add("output.weight");
  for (int64_t layer = 0; layer < arch.layers; ++layer)
    for (const char* part :
         {"attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight",
          "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"})
      add(block(layer, part));
  layout.decayed = layout.total;
  for (int64_t layer = 0; layer < arch.layers; ++layer)
    for (const char* part :
         {"attn_norm.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias",
          "ffn_norm.weight", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"})
      add(block(layer, part));
  add("output_norm.weight");
  if (layout.slots.size() != specs.size())
    throw_unsupported("training: family '" + arch.family +
                      "' has tensors that LibTorch's decoder does not know");
  return layout;
}

}  // namespace slmc
