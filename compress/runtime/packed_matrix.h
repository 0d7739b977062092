// A weight matrix repacked into panels of 16 output rows, and its product with rows of activations.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/core/tensor.h"
#include "compress/runtime/kernels/kernels.h"
#include "compress/runtime/memory.h"

namespace slmc {

class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// Copies `view` [rows, k] (f32, f16, bf16 or any block type). Types without kernels of their own
  /// share one with 8-bit codes, which takes more memory than the file. Throws Error(kUnsupported)
  /// naming the tensor for another type.
  PackedMatrix(const TensorView& view, const std::string& name);

  int64_t rows() const { return rows_; }
  int64_t k() const { return k_; }
  /// Its inputs are to be rounded to 8 bits (w8a8), with `input_scale` or, if that is 0, with a
  /// scale for each token.
  bool rounds_inputs() const { return rounds_inputs_; }
  float input_scale() const { return input_scale_; }
  bool quantized() const { return kernels::packing_of(kind_).span > 0; }
  uint64_t bytes() const { return memory_.size(); }
  int64_t panels() const { return (rows_ + kernels::kLanes - 1) / kernels::kLanes; }
  int64_t panel_bytes() const { return panel_bytes_; }
  kernels::Kind kind() const { return kind_; }
  const std::byte* data() const { return memory_.data(); }
  /// Row `row` as floats [k]; how a tied head serves as the embedding.
  void decode_row(int64_t row, float* out) const;

 private:
  kernels::Kind kind_ = kernels::Kind::kF32;
  int64_t rows_ = 0, k_ = 0, panel_bytes_ = 0;
  bool rounds_inputs_ = false;
  float input_scale_ = 0;
  PagedMemory memory_;
};

/// What a matrix of that type takes once repacked, and what a product with one token reads of it.
/// Throws as PackedMatrix.
uint64_t packed_bytes(DType type, int64_t rows, int64_t k, const std::string& name);

/// Rows of activations [tokens][k], and the same rounded to int8 when integer arithmetic is wanted.
struct ActivationRows {
  const float* x = nullptr;
  int64_t stride = 0, tokens = 0;
  const kernels::QuantizedRows* quantized = nullptr;
};

struct Product {
  const PackedMatrix* matrix = nullptr;
  const float* bias = nullptr;  ///< [rows] or null; added after the product.
  float* out = nullptr;         ///< [tokens][stride]
  int64_t stride = 0;
};

/// All products of the same activations, in one parallel loop. Quantized matrices use integer
/// arithmetic if `rows.quantized` is given.
void multiply(const ActivationRows& rows, std::span<const Product> products);

}  // namespace slmc
