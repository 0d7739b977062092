// A model some of whose channels are scaled, each with the reverse elsewhere, so that it computes
// what it did: inputs of a group of linear layers divided by s (folded into the norm or the layer
// before it), their weights' columns multiplied by s.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "formats/model.h"

namespace slmc {

class ScaledWeights : public WeightSource {
 public:
  explicit ScaledWeights(const Model& model) : model_(model), arch_(model.arch()) {}

  const Model& model() const { return model_; }
  bool empty() const { return factors_.empty(); }
  /// Multiplies the columns of a matrix by `factors` [in].
  void scale_columns(const std::string& name, const std::vector<float>& factors);
  /// Multiplies the rows of a matrix, or a vector's elements, by `factors` [out]. With `offset` the
  /// vector stands for offset + value (Gemma's norms).
  void scale_rows(const std::string& name, const std::vector<float>& factors, float offset = 0);

  /// Keys and values are kept in 8 bits with these scales (Architecture::kv_scales) from here on.
  void fix_cache(std::vector<float> scales) { arch_.kv_scales = std::move(scales); }

  const Architecture& arch() const override { return arch_; }
  bool has(const std::string& name) const override { return model_.has(name); }
  /// The model's own view, or a copy in f32 where something is scaled.
  TensorView view(const std::string& name) const override;
  void release(const std::string& name) const override { model_.release(name); }
  /// As Model::read_rows.
  void read_rows(const std::string& name, int64_t row, int64_t count, float* out) const;

 private:
  struct Factors {
    std::vector<float> rows, columns;  // Empty: ones.
    float offset = 0;
  };
  const Model& model_;
  Architecture arch_;
  std::map<std::string, Factors> factors_;
};

}  // namespace slmc
