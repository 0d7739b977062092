#include <algorithm>
#include <map>

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

bool ParameterLayout::has(const std::string& name) const {
  return std::any_of(slots.begin(), slots.end(),
                     [&](const ParameterSlot& slot) { return slot.name == name; });
}

ParameterLayout parameter_layout(const Architecture& arch) {
  ParameterLayout layout;
  // Query, key and value lie together here, as do gate and up; canonical order keeps them apart in
  // some families. What no block has follows.
  const std::vector<TensorSpec> specs = family_by_name(arch.family).tensors(arch);
  std::map<std::string, const TensorSpec*> waiting;
  for (const TensorSpec& spec : specs) waiting[spec.name] = &spec;
  const auto add = [&](const std::string& name) {
    const auto found = waiting.find(name);
    if (found == waiting.end()) return;
    const TensorSpec& spec = *found->second;
    ParameterSlot slot{.name = name,
                       .shape = spec.shape,
                       .offset = layout.total,
                       .size = element_count(spec.shape),
                       .decay = spec.shape.size() > 1};
    layout.total += slot.size;
    layout.slots.push_back(std::move(slot));
    waiting.erase(found);
  };
  const auto add_rest = [&](bool matrices) {
    for (const TensorSpec& spec : specs)
      if ((spec.shape.size() > 1) == matrices) add(spec.name);
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
  add_rest(true);
  layout.decayed = layout.total;
  for (int64_t layer = 0; layer < arch.layers; ++layer)
    for (const char* part :
         {"attn_norm.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias",
          "ffn_norm.weight", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"})
      add(block(layer, part));
  add_rest(false);
  return layout;
}

ParameterLayout upper_layout(const Architecture& arch, int64_t first_layer) {
  const ParameterLayout all = parameter_layout(arch);
  ParameterLayout layout;
  for (ParameterSlot slot : all.slots) {
    const bool upper =
        slot.name.starts_with("blk.")
            ? std::stoll(slot.name.substr(4)) >= first_layer
            : !slot.name.starts_with("token_") && slot.name != "position_embd.weight";
    if (!upper) continue;
    slot.offset = layout.total;
    layout.total += slot.size;
    if (slot.decay) layout.decayed = layout.total;
    layout.slots.push_back(std::move(slot));
  }
  return layout;
}

ParameterLayout lora_layout(const Lora& lora) {
  ParameterLayout layout;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    layout.slots.push_back({.name = name,
                            .shape = shape,
                            .offset = layout.total,
                            .size = element_count(shape),
                            .decay = true});
    layout.total += layout.slots.back().size;
  };
  for (const LoraTarget& target : lora.targets) {
    add(target.a(), {lora.rank, target.columns});
    add(target.b(), {target.all_rows(), lora.rank});
  }
  layout.decayed = layout.total;
  return layout;
}

}  // namespace slmc
