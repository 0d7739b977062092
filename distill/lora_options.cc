// How fine-tuning's adapters are asked for, and how they begin.
#include <cmath>
#include <sstream>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"
#include "distill/finetune_stage.h"
#include "distill/random_stream.h"

namespace slmc {
namespace {

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream items(text);
  for (std::string item; std::getline(items, item, at);)
    if (!item.empty()) parts.push_back(item);
  return parts;
}

}  // namespace

int64_t layer_of(const LoraTarget& target) {
  return std::stoll(target.tensors.front().substr(std::string("blk.").size()));
}

Lora parse_lora(const std::string& text, const Architecture& arch, int64_t first_layer) {
  static const std::vector<std::string> kKeys{"r", "alpha", "dropout", "targets", "rslora"};
  Lora lora;
  bool has_alpha = false;
  std::vector<std::string> targets;
  for (const std::string& item : split(text, ',')) {
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals),
                      value = equals == std::string::npos ? "" : item.substr(equals + 1);
    const std::string label = cat("lora: ", key);
    if (key == "r") {
      set_field_text({.name = key, .help = "", .min = 1, .max = 4096}, label, value, lora.rank);
    } else if (key == "alpha") {
      set_field_text({.name = key, .help = "", .min = 0}, label, value, lora.alpha);
      has_alpha = true;
    } else if (key == "dropout") {
      set_field_text({.name = key, .help = "", .min = 0, .max = 0.99}, label, value, lora.dropout);
    } else if (key == "rslora") {
      set_field_text({.name = key, .help = ""}, label, value, lora.root_scale);
    } else if (key == "targets") {
      targets = split(value, '+');
    } else {
      throw_usage(cat("lora: no key '", key, "' (known: ", join(kKeys, ", "), ")",
                      did_you_mean(key, kKeys)));
    }
  }
  if (!has_alpha) lora.alpha = 2.0 * static_cast<double>(lora.rank);
  if (targets == std::vector<std::string>{"all"}) targets.clear();
  for (LoraTarget& target : lora_targets(arch, targets))
    if (layer_of(target) >= first_layer) lora.targets.push_back(std::move(target));
  return lora;
}

std::shared_ptr<const WeightSource> initial_lora(const Lora& lora, const Architecture& arch,
                                                 uint64_t seed) {
  auto weights = std::make_shared<MemoryWeights>(arch);
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, double bound) {
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(element_count(shape)));
    Random random = random_stream(seed, name);
    if (bound > 0)
      for (float& value : *values)
        value = static_cast<float>(bound * (2.0 * random.uniform() - 1.0));
    weights->add(name, {.data = reinterpret_cast<const std::byte*>(values->data()),
                        .dtype = DType::kF32,
                        .shape = std::move(shape),
                        .owner = values});
  };
  for (const LoraTarget& target : lora.targets) {
    add(target.a(), {lora.rank, target.columns},
        1.0 / std::sqrt(static_cast<double>(target.columns)));
    add(target.b(), {target.all_rows(), lora.rank}, 0);
  }
  return weights;
}

int64_t first_trained_layer(const std::string& text, int64_t layers) {
  if (text.empty() || text == "all") return 0;
  int64_t count = 0;
  if (!text.starts_with("last:"))
    throw_usage(cat("train_layers: expected last:N or all, found '", text, "'"));
  set_field_text({.name = "train_layers", .help = "", .min = 1, .max = static_cast<double>(layers)},
                 "train_layers: last", text.substr(std::string("last:").size()), count);
  return layers - count;
}

}  // namespace slmc
