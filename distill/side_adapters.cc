#include "distill/side_adapters.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"
#include "distill/random_stream.h"
#include "formats/prompt_tuning.h"

namespace slmc {
namespace {

using Values = std::vector<float>;

constexpr const char* kText = "text:";

/// Rows of the embedding as they enter the first block.
Values embedded(const WeightSource& base, const std::vector<int32_t>& ids) {
  const TensorView table = base.view("token_embd.weight");
  const int64_t hidden = table.columns();
  const auto scale = static_cast<float>(base.arch().embedding_scale);
  Values rows(ids.size() * static_cast<size_t>(hidden));
  for (size_t i = 0; i < ids.size(); ++i)
    decode_rows(table, ids[i], 1, rows.data() + static_cast<int64_t>(i) * hidden);
  for (float& value : rows) value *= scale;
  return rows;
}

Values first_prompt(const std::string& init, int64_t tokens, const WeightSource& base,
                    const Vocabulary& vocabulary, Random random) {
  if (init == "random") {
    Values values(static_cast<size_t>(tokens * base.arch().hidden));
    for (float& value : values) value = static_cast<float>(random.normal());
    return values;
  }
  std::vector<int32_t> ids;
  if (init == "vocabulary") {
    for (int64_t i = 0; i < tokens; ++i)
      ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary.size))));
    return embedded(base, ids);
  }
  const std::vector<int32_t> text =
      vocabulary.tokenizer->encode(init.substr(std::string(kText).size()));
  if (text.empty()) throw_usage("prompt_init: expected a text behind text:, found none");
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(text[static_cast<size_t>(i) % text.size()]);
  return embedded(base, ids);
}

Values first_values(const FinetuneOptions& o, const SideAdapter& adapter, const SideTensor& tensor,
                    const WeightSource& base, const Vocabulary& vocabulary, uint64_t seed) {
  Random random = random_stream(seed, tensor.name);
  if (adapter.kind == AdapterKind::kPrompt)
    return first_prompt(o.prompt_init, o.prompt_tokens, base, vocabulary, random);
  Values values(static_cast<size_t>(element_count(tensor.shape)), 0.0f);
  if (!tensor.name.ends_with("down.weight")) return values;
  const double bound = 1.0 / std::sqrt(static_cast<double>(tensor.shape[1]));
  for (float& value : values) value = static_cast<float>(bound * (2.0 * random.uniform() - 1.0));
  return values;
}

}  // namespace

std::optional<AdapterKind> tuned_beside(const FinetuneOptions& o) {
  if (!o.init_adapter.empty()) return adapter_kind(o.init_adapter);
  if (!o.adapter.empty()) return AdapterKind::kBottleneck;
  if (o.prompt_tokens > 0) return AdapterKind::kPrompt;
  if (!o.lora.empty() || (!o.full && o.train_layers.empty())) return AdapterKind::kLora;
  return std::nullopt;
}

void check_side_adapter(const FinetuneOptions& o, AdapterKind kind, const Architecture& arch) {
  const bool prompt = kind == AdapterKind::kPrompt;
  const char* const what = prompt ? "a tuned prompt" : "a bottleneck adapter";
  if (o.merge)
    throw_usage(cat("merge: ", what,
                    " is no change of the weights that could be merged; leave --merge out and run "
                    "the model with --adapter"));
  if (o.output.ends_with(".gguf"))
    throw_unsupported(cat(o.output, ": llama.cpp has nothing that runs ", what,
                          "; name a folder, or train --lora"));
  if (prompt && !o.train_layers.empty())
    throw_usage("train_layers: a prompt is learned through all layers; leave it out");
  const bool known = o.prompt_init == "vocabulary" || o.prompt_init == "random";
  if (prompt && !known && !o.prompt_init.starts_with(kText))
    throw_usage(
        cat("prompt_init: expected vocabulary, random or text:..., found '", o.prompt_init, "'"));
  if (prompt && o.init_adapter.empty() && arch.learned_positions &&
      o.context + o.prompt_tokens > arch.context)
    throw_usage(cat("context: with ", o.prompt_tokens, " virtual tokens expected at most ",
                    arch.context - o.prompt_tokens, " of the model's ", arch.context,
                    " positions, found ", o.context));
}

BottleneckSettings parse_bottleneck(const std::string& text, int64_t first_layer) {
  static const std::vector<std::string> kKeys{"reduction", "kind", "activation", "dropout"};
  BottleneckSettings settings{.first_layer = first_layer};
  std::string kind = "pfeiffer", activation;
  std::istringstream items(text);
  for (std::string item; std::getline(items, item, ',');) {
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals),
                      value = equals == std::string::npos ? "" : item.substr(equals + 1),
                      label = cat("adapter: ", key);
    if (key == "reduction")
      set_field_text({.name = key, .help = "", .min = 0.1, .max = 1e6}, label, value,
                     settings.reduction);
    else if (key == "dropout")
      set_field_text({.name = key, .help = "", .min = 0, .max = 0.99}, label, value,
                     settings.dropout);
    else if (key == "kind")
      set_field_text({.name = key, .help = "", .choices = {"pfeiffer", "houlsby"}}, label, value,
                     kind);
    else if (key == "activation")
      set_field_text({.name = key, .help = "", .choices = {"relu", "silu", "gelu", "gelu_tanh"}},
                     label, value, activation);
    else
      throw_usage(cat("adapter: no key '", key, "' (known: ", join(kKeys, ", "), ")",
                      did_you_mean(key, kKeys)));
  }
  settings.houlsby = kind == "houlsby";
  settings.activation = settings.houlsby ? Activation::kSilu : Activation::kRelu;
  for (const Activation each :
       {Activation::kRelu, Activation::kSilu, Activation::kGelu, Activation::kGeluTanh})
    if (activation == activation_name(each)) settings.activation = each;
  return settings;
}

SideAdapter side_adapter(const FinetuneOptions& o, const WeightSource& base,
                         const Vocabulary* vocabulary, uint64_t seed) {
  const Architecture& arch = base.arch();
  if (!o.init_adapter.empty()) return read_side_adapter(o.init_adapter, arch);
  SideAdapter adapter =
      o.prompt_tokens > 0
          ? make_prompt(arch, o.prompt_tokens)
          : make_bottleneck(arch, parse_bottleneck(
                                      o.adapter, first_trained_layer(o.train_layers, arch.layers)));
  if (vocabulary == nullptr) return adapter;
  auto weights = std::make_shared<MemoryWeights>(arch);
  for (const SideTensor& tensor : adapter.tensors) {
    auto values =
        std::make_shared<Values>(first_values(o, adapter, tensor, base, *vocabulary, seed));
    weights->add(tensor.name, {.data = reinterpret_cast<const std::byte*>(values->data()),
                               .dtype = DType::kF32,
                               .shape = tensor.shape,
                               .owner = values});
  }
  adapter.values = weights;
  return adapter;
}

ParameterLayout side_layout(const SideAdapter& adapter) {
  ParameterLayout layout;
  const auto add = [&](bool matrices) {
    for (const SideTensor& tensor : adapter.tensors) {
      const bool decays = tensor.shape.size() > 1 && adapter.kind == AdapterKind::kBottleneck;
      if (decays != matrices) continue;
      layout.slots.push_back({.name = tensor.name,
                              .shape = tensor.shape,
                              .offset = layout.total,
                              .size = element_count(tensor.shape),
                              .decay = decays});
      layout.total += layout.slots.back().size;
    }
  };
  add(true);
  layout.decayed = layout.total;
  add(false);
  return layout;
}

}  // namespace slmc
