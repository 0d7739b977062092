#include "distill/classes.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "distill/product.h"
#include "formats/family.h"
#include "formats/labels.h"

namespace slmc {
namespace {

bool of_head(const std::string& name) { return name.starts_with("cls."); }

/// The pooler that a checkpoint of another class carries along, as a tensor of this shape; empty if
/// there is none.
TensorView carried_pooler(const Model* model, const TensorSpec& spec) {
  if (model == nullptr) return {};
  for (const CarriedTensor& tensor : model->assets().carried)
    if ((tensor.name == spec.hf.name || "bert." + tensor.name == spec.hf.name) &&
        tensor.view.shape == spec.shape)
      return tensor.view;
  return {};
}

Json classifier_config(const Student& student, const Family& family,
                       const std::vector<std::string>& names) {
  const auto found =
      std::find_if(family.hf_architectures.begin(), family.hf_architectures.end(),
                   [](const auto& name) { return name.ends_with("ForSequenceClassification"); });
  if (found == family.hf_architectures.end())
    throw_unsupported(cat(student.origin, ": ", family.name, " has no classification head"));
  Json config = family.to_config(student.arch, student.config);
  config["architectures"] = {*found};
  config.erase("slmc_pooling");
  set_class_names(names, config);
  return config;
}

}  // namespace

std::vector<std::string> classes_of(const Architecture& arch, const Json& config) {
  if (arch.head != Head::kClassifier) return {};
  return class_names(config, arch.classes);
}

Student with_classes(Student student, const std::vector<std::string>& names, uint64_t seed) {
  const Family& family = family_by_name(student.arch.family);
  if (classes_of(student.arch, student.config) == names) return student;
  student.config = classifier_config(student, family, names);
  student.arch = family.from_config(student.config, student.origin);
  count_parameters(student.arch);
  const double range = student.config.value("initializer_range", 0.02);
  auto head = std::make_shared<MemoryWeights>(student.arch);
  for (const TensorSpec& spec : family.tensors(student.arch)) {
    if (!of_head(spec.name)) continue;
    const TensorView pooler = carried_pooler(student.model.get(), spec);
    const double deviation = spec.shape.size() > 1 ? range : 0.0;
    head->add(spec.name, pooler.data != nullptr ? pooler : random_tensor(spec, deviation, seed));
  }
  student.weights = overlaid(std::move(head), student.weights);
  student.new_head = true;
  return student;
}

void add_head(const Architecture& arch, ParameterLayout& layout) {
  if (arch.head != Head::kClassifier) return;
  for (const bool matrices : {true, false}) {
    for (const ParameterSlot& slot : parameter_layout(arch).slots) {
      if (!of_head(slot.name) || (slot.shape.size() > 1) != matrices) continue;
      layout.slots.push_back(slot);
      layout.slots.back().offset = layout.total;
      layout.total += slot.size;
    }
    if (matrices) layout.decayed = layout.total;
  }
}

}  // namespace slmc
