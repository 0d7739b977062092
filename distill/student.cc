#include "distill/student.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "distill/random_stream.h"
#include "formats/family.h"

namespace slmc {
namespace {

/// A teacher's tensors under the names of a model with fewer layers.
class LayerSubset : public WeightSource {
 public:
  LayerSubset(std::shared_ptr<const Model> teacher, std::vector<int64_t> layers, Architecture arch)
      : teacher_(std::move(teacher)), layers_(std::move(layers)), arch_(std::move(arch)) {}
  const Architecture& arch() const override { return arch_; }
  bool has(const std::string& name) const override {
    const std::string theirs = their_name(name);
    return !theirs.empty() && teacher_->has(theirs);
  }
  TensorView view(const std::string& name) const override {
    return teacher_->view(checked_name(name));
  }
  void release(const std::string& name) const override { teacher_->release(checked_name(name)); }

 private:
  std::string checked_name(const std::string& name) const {
    const std::string theirs = their_name(name);
    if (theirs.empty())
      throw_bad_input(
          cat("student: tensor ", name, " is not among its ", layers_.size(), " layers"));
    return theirs;
  }
  std::string their_name(const std::string& name) const {
    if (!name.starts_with("blk.")) return name;
    const size_t dot = name.find('.', 4);
    const auto layer = static_cast<size_t>(std::stoull(name.substr(4, dot - 4)));
    return layer < layers_.size() ? cat("blk.", layers_[layer], name.substr(dot)) : "";
  }
  std::shared_ptr<const Model> teacher_;
  std::vector<int64_t> layers_;
  Architecture arch_;
};

/// Residual branches end in these; damping them keeps the residual stream's variance independent of
/// depth at the start.
bool ends_branch(const std::string& name) {
  return name.ends_with("attn_output.weight") || name.ends_with("ffn_down.weight");
}

}  // namespace

void count_parameters(Architecture& arch) {
  arch.parameters = 0;
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch))
    arch.parameters += element_count(spec.shape);
}

TensorView random_tensor(const TensorSpec& spec, double deviation, uint64_t seed, float constant) {
  Random random = random_stream(seed, spec.name);
  auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(element_count(spec.shape)),
                                                     constant);
  if (deviation > 0)
    for (float& value : *values) value = static_cast<float>(deviation * random.normal());
  return {.data = reinterpret_cast<const std::byte*>(values->data()),
          .dtype = DType::kF32,
          .shape = spec.shape,
          .owner = values};
}

Student student_from_layers(std::shared_ptr<const Model> teacher,
                            const std::vector<int64_t>& layers) {
  Student student;
  student.arch = keep_layers(teacher->arch(), layers);
  count_parameters(student.arch);
  student.config = teacher->config();
  std::vector<std::string> numbers;
  for (const int64_t layer : layers) numbers.push_back(std::to_string(layer));
  student.origin = cat("layers ", join(numbers, ", "), " of ", teacher->path());
  student.layers = layers;
  student.weights = std::make_shared<LayerSubset>(std::move(teacher), layers, student.arch);
  return student;
}

Student student_from_config(const std::string& config_path, uint64_t seed, bool allocate) {
  Student student;
  student.config = read_json(config_path);
  const Family& family = family_for_config(student.config, config_path);
  student.arch = family.from_config(student.config, config_path);
  count_parameters(student.arch);
  student.origin = cat(config_path, ", random weights of seed ", seed);
  const double range = student.config.value("initializer_range", 0.02);
  const double damping = 1.0 / std::sqrt(2.0 * static_cast<double>(student.arch.layers));
  auto weights = std::make_shared<MemoryWeights>(student.arch);
  const std::vector<TensorSpec> specs = family.tensors(student.arch);
  std::vector<TensorView> views(specs.size());
  if (allocate) {
    parallel_for(static_cast<int64_t>(specs.size()), [&](int64_t index) {
      const TensorSpec& spec = specs[static_cast<size_t>(index)];
      // An encoder norms what a branch gives with what it is added to.
      const bool damped = ends_branch(spec.name) && !student.arch.encoder;
      const double deviation = spec.shape.size() > 1 ? range * (damped ? damping : 1.0) : 0.0;
      const float constant = spec.name.ends_with("norm.weight")
                                 ? static_cast<float>(1.0 - student.arch.norm_offset)
                                 : 0;
      views[static_cast<size_t>(index)] = random_tensor(spec, deviation, seed, constant);
    });
    for (size_t i = 0; i < specs.size(); ++i) weights->add(specs[i].name, views[i]);
  }
  student.weights = std::move(weights);
  return student;
}

Student student_from_checkpoint(const std::string& path) {
  Student student;
  auto model = Model::open(path);
  student.arch = model->arch();
  student.config = model->config();
  student.origin = path;
  student.model = model;
  student.weights = std::move(model);
  return student;
}

}  // namespace slmc
