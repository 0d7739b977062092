// The matrices of a network as the decoder uses them: trained ones are leaves over flat buffers,
// frozen ones stay in the type they have in their file and are decoded at each use (on a device
// other than the cpu once, to stay there), with low-rank adapters (LoRA) beside them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "compress/torch/functions.h"
#include "compress/torch/precompiled.h"
#include "formats/adapter.h"
#include "formats/model.h"

namespace slmc::libtorch {

/// The matrix that final states, or what an encoder's head makes of them, are multiplied with.
std::string head_name(const Architecture& arch);

/// Where a network runs and what it multiplies in.
struct ForwardPlace {
  at::Device device{at::kCPU};
  bool bf16 = false;
  Operators operators = Operators::kKernels;  ///< On the cpu alone.
};

/// The tensors of a model that are not trained, as they are used on `place.device`. Safe to use
/// from several threads.
class Frozen {
 public:
  /// `once`: nothing will be used again, so of what a source makes or maps for a tensor nothing is
  /// kept. So it is on a device in any case.
  Frozen(std::shared_ptr<const WeightSource> source, const ForwardPlace& place, bool once = false);
  /// A tensor that the architecture does not name is not there, whatever the source has, unless
  /// something is tuned beside the weights.
  bool has(const std::string& name) const;
  const SideShape& side() const { return side_shape(*source_); }
  /// As in the file; canonical rows.
  TensorView view(const std::string& name) const;
  int64_t rows(const std::string& name) const { return rows_.at(name); }
  /// Decoded, [rows, columns] or [n].
  at::Tensor decoded(const std::string& name) const;
  /// Matrices whose rows follow each other, in host memory.
  at::Tensor decoded(const std::vector<std::string>& names) const;
  /// The same on the device, in what it multiplies in; undefined on the cpu.
  at::Tensor resident(const std::vector<std::string>& names) const;
  /// The head's matrix, decoded once for all who ask.
  const at::Tensor& head() const;

 private:
  std::shared_ptr<const WeightSource> source_;
  ForwardPlace place_;
  bool keeps_;
  std::map<std::string, int64_t> rows_;  ///< Of what the architecture names.
  mutable std::mutex mutex_;
  mutable std::map<std::string, TensorView> views_;  ///< Some are copies with rows reordered.
  mutable at::Tensor head_;
};

/// What holds for all matrices of a network in one pass.
struct MatrixUse {
  bool bf16 = false;        ///< Products with matrices round both sides; sums are f32.
  bool striped = false;     ///< Products in f32 are divided among threads (products.h).
  double scale = 1;         ///< Of adapters.
  double dropout = 0;       ///< Of low-rank adapters' inputs, or what bottleneck adapters add.
  bool keep_zeros = false;  ///< What is added to a weight that is 0 is 0.
  uint64_t seed = 0;        ///< Of this pass's dropout.
  Operators operators = Operators::kKernels;
};

/// A [rank, columns] and B [rows, rank], leaves; they add scale * B A to rows [first, first + rows)
/// of a matrix.
struct LowRank {
  at::Tensor a, b;
  int64_t first = 0;
  uint64_t number = 0;  ///< Tells adapters apart in dropout's streams.
};

/// How the inputs of a matrix are rounded to 8 bits first (w8a8), as compressed-tensors has it.
struct RoundedInputs {
  bool rounds = false;
  double scale = 0;  ///< 0: max|x| / 127.5 of each row.
  at::Tensor round(const at::Tensor& x) const;
};

struct Matrix {
  std::vector<std::string> names{};  ///< Of the tensors whose rows follow each other.
  at::Tensor leaf{};                 ///< Trained, or of a network whose weights are all in memory.
  RoundedInputs inputs{};            ///< Of `leaf`.
  std::vector<Matrix> parts{};  ///< In place of a leaf: tensors whose inputs are not rounded alike.
  const Frozen* frozen = nullptr;   ///< Has it, if it is not trained ...
  at::Tensor resident{};            ///< ... and gives this of it.
  std::vector<LowRank> adapters{};  ///< Of a frozen matrix.
};

/// Decodes a tensor on all threads that are free, in host memory.
void decode_all(const TensorView& view, float* out);
/// a b, both rounded to `type` first; float32, of which the products are sums in float32.
at::Tensor multiply_as(at::ScalarType type, const at::Tensor& a, const at::Tensor& b);
/// x in training with `use`'s dropout, whose stream has this number; x itself without.
at::Tensor drop(const at::Tensor& x, const MatrixUse& use, uint64_t number);
/// x W^T, x: [n, columns]. `matrix` and `use` must outlive the backward pass.
at::Tensor multiply(const at::Tensor& x, const Matrix& matrix, const MatrixUse& use);

}  // namespace slmc::libtorch
