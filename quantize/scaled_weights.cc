#include "quantize/scaled_weights.h"

#include "compress/core/error.h"

namespace slmc {
namespace {

void multiply_into(std::vector<float>& factors, const std::vector<float>& by) {
  if (factors.empty()) factors.assign(by.size(), 1.0f);
  SLMC_CHECK(factors.size() == by.size(), "factors of one width");
  for (size_t i = 0; i < by.size(); ++i) factors[i] *= by[i];
}

}  // namespace

void ScaledWeights::scale_columns(const std::string& name, const std::vector<float>& factors) {
  multiply_into(factors_[name].columns, factors);
}

void ScaledWeights::scale_rows(const std::string& name, const std::vector<float>& factors,
                               float offset) {
  multiply_into(factors_[name].rows, factors);
  factors_[name].offset = offset;
}

TensorView ScaledWeights::view(const std::string& name) const {
  if (factors_.count(name) == 0) return model_.view(name);
  const std::vector<int64_t>& shape = model_.info(name).shape;
  const auto values =
      std::make_shared<std::vector<float>>(static_cast<size_t>(element_count(shape)));
  read_rows(name, 0, element_count(shape) / shape.back(), values->data());
  return {reinterpret_cast<const std::byte*>(values->data()), DType::kF32, shape, values};
}

void ScaledWeights::read_rows(const std::string& name, int64_t row, int64_t count,
                              float* out) const {
  model_.read_rows(name, row, count, out);
  const auto found = factors_.find(name);
  if (found == factors_.end()) return;
  const Factors& factors = found->second;
  const std::vector<int64_t>& shape = model_.info(name).shape;
  const int64_t columns = shape.back();
  if (shape.size() == 1) {
    for (int64_t i = 0; i < count * columns; ++i)
      out[i] = (out[i] + factors.offset) * factors.rows[static_cast<size_t>(i)] - factors.offset;
    return;
  }
  for (int64_t r = 0; r < count; ++r) {
    const float by = factors.rows.empty() ? 1.0f : factors.rows[static_cast<size_t>(row + r)];
    for (int64_t c = 0; c < columns; ++c) {
      const float column = factors.columns.empty() ? 1.0f : factors.columns[static_cast<size_t>(c)];
      out[r * columns + c] *= by * column;
    }
  }
}

}  // namespace slmc
