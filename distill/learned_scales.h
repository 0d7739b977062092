// Scales that are trained (learned step size quantization: Esser et al. 2020, equations 1 to 3).
// The network runs on s * clamp(round((w + m) / s)) - m, with s and m as the file will hold them,
// and the optimizer moves w, s and m. What is trained of a scale is the value that its extreme code
// stands for, so that it is as large as the weights and a step of the optimizer moves both alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distill/rounding.h"

namespace slmc {

/// Names of a weight's slots in the layout: [rows, units] each, of which the second is there where
/// the type has a minimum (or a zero point). A unit is what shares a scale: a sub-block, a group,
/// a row.
std::string scale_name(const std::string& weight);
std::string minimum_name(const std::string& weight);

/// Slots for the scales of every matrix of `layout` that is stored in blocks, behind all others.
void add_scales(const StoredTypes& types, ParameterLayout& layout);
/// Their first values: those that `start` holds where it has that very type, else those that
/// quantize's method "nearest" finds.
std::shared_ptr<const WeightSource> initial_scales(const StoredTypes& types,
                                                   const ParameterLayout& layout,
                                                   const WeightSource& start);

/// A matrix, or some of its rows, with its scales.
struct ScaledRows {
  DType type;
  const float* weights = nullptr;   ///< [rows, columns]
  const float* scales = nullptr;    ///< [rows, units]
  const float* minimums = nullptr;  ///< [rows, units], or null.
  int64_t rows = 0, columns = 0;
};
/// A matrix of a network whose scales are trained, in floats.
class ScaledTensor {
 public:
  ScaledTensor(DType type, std::vector<float> weights, std::vector<float> scales,
               std::vector<float> minimums, int64_t columns)
      : type_(type),
        weights_(std::move(weights)),
        scales_(std::move(scales)),
        minimums_(std::move(minimums)),
        columns_(columns) {}
  /// Rows [begin, begin + count), views of this.
  ScaledRows rows(int64_t begin, int64_t count) const;

 private:
  DType type_;
  std::vector<float> weights_, scales_, minimums_;
  int64_t columns_;
};
/// Null if `network` has no scales for it.
std::unique_ptr<ScaledTensor> scaled_tensor(const WeightSource& network, const std::string& name,
                                            DType type);

/// Their blocks: scales rounded to what the type can hold, nearest codes. In the calling thread.
void encode_scaled(const ScaledRows& rows, std::byte* out);

/// What these blocks stand for: out [rows, columns]. In the calling thread.
void round_scaled(const ScaledRows& rows, float* out);

/// Whether `layout` has slots for the scales of this one.
bool has_scales(const ParameterLayout& layout, const ParameterSlot& slot, DType type);
/// Rows of it with their scales, views of `weights` [layout.total].
ScaledRows scaled_rows(const ParameterLayout& layout, const ParameterSlot& slot, DType type,
                       int64_t row, int64_t rows, const float* weights);
/// `gradients` [layout.total] of the rounded network become those of the weights, 0 where a weight
/// lies beyond the extreme codes, and of the scales.
void scale_gradients(const ParameterLayout& layout, const StoredTypes& types, const float* weights,
                     float* gradients);

}  // namespace slmc
