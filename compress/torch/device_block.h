// One block, or what is before and behind all blocks, decoded onto a device for inference.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/torch/block.h"
#include "formats/model.h"

namespace slmc::libtorch {

class DeviceBlock {
 public:
  /// Decodes block `layer` of `source`, or one branch; with `until` (a matrix of it) only what is
  /// used before that one, so that an observer must stop the run there. `context`: tokens that
  /// sequences are declared to have at most.
  DeviceBlock(const WeightSource& source, int64_t layer, Branch branch, const ForwardPlace& place,
              int64_t context, const std::string& until = "");

  /// One whole sequence [tokens, hidden] from position 0, on the block's device.
  at::Tensor run(const at::Tensor& x, BlockObserver* observer) const;

 private:
  BlockArithmetic arithmetic_;
  Branch branch_;
  BlockWeights weights_;
  AttentionShape shape_;
};

/// The rows of the embedding as they enter the first block, in host memory.
class DeviceEmbedding {
 public:
  explicit DeviceEmbedding(const WeightSource& source);
  /// [ids, hidden]. Throws Error(kBadInput) for an id outside the vocabulary.
  at::Tensor run(const std::vector<int32_t>& ids) const;

 private:
  BlockArithmetic arithmetic_;
  TensorView table_;
  EntryWeights entry_;
};

/// What goes into the head.
class DeviceOutputNorm {
 public:
  DeviceOutputNorm(const WeightSource& source, const ForwardPlace& place);
  at::Tensor run(const at::Tensor& x) const { return arithmetic_.norm(x, weights_); }

 private:
  BlockArithmetic arithmetic_;
  NormWeights weights_;
};

}  // namespace slmc::libtorch
