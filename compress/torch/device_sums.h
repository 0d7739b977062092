// The sums behind a layer's statistics, gathered where the forward pass runs.
#pragma once

#include <cstdint>

#include "compress/torch/precompiled.h"
#include "quantize/input_statistics.h"

namespace slmc::libtorch {

/// Adds to the sums of an InputStatistics on a device; `finish` brings them back. On the CPU they
/// are gathered in its own memory, in pieces of channels that several threads work on, each by
/// itself: the same bits for any number of threads.
///
/// Vectors (of x, x^2, |x|) are summed in float64, as the runtime does. The matrix of x x^T is a
/// sum of float32 products over windows, kept in float32: each entry is the sum of at most some
/// hundred windows' (of some hundred tokens each), whose relative rounding error of about 1e-6 is
/// far below the damping (1e-2) that is added before it is inverted, and float64 would double what
/// is the largest buffer of all. TF32 is not used.
class DeviceSums {
 public:
  /// `height` > 0: cross products with vectors of that many channels too. `statistics` must outlive
  /// this.
  DeviceSums(InputStatistics& statistics, int64_t height, at::Device device);

  /// x [tokens, width]. Throws as InputStatistics::add does for values that are not finite.
  void add(const at::Tensor& x);
  /// To the sum of difference x^T; difference [tokens, height].
  void add_cross(const at::Tensor& difference, const at::Tensor& x);
  void finish();

 private:
  struct Buffer {
    at::Tensor host, sum;  ///< On the CPU the same memory.
  };
  Buffer buffer(void* data, at::IntArrayRef sizes, int64_t stride, at::ScalarType type) const;

  InputStatistics& statistics_;
  at::Device device_;
  Buffer values_, squares_, magnitudes_, peaks_, products_, cross_;
};

}  // namespace slmc::libtorch
