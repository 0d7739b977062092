// A method: how a weight is rounded onto the grid of its target type. One file under
// quantize/methods/ defines `const Method& slmc::method_<file>()`; the build finds it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/json.h"
#include "compress/core/linear_statistics.h"
#include "formats/block_codec.h"
#include "quantize/kernels/kernels.h"

namespace slmc {

/// What methods can be told; each looks at its own.
struct MethodOptions {
  double damping = 0.01;     ///< gptq: added to the Hessian's diagonal, times its mean.
  bool act_order = false;    ///< gptq: columns in order of falling activation.
  int64_t sweeps = 2;        ///< gptq: of coordinate descent over the codes afterwards.
  double correction = 0.5;   ///< gptq: share of earlier layers' losses that later ones make good.
  double smooth_alpha = -1;  ///< smoothquant: how much goes to the weights; below 0: its own.
};

/// Rows of one weight. All values are finite.
struct EncodeRequest {
  const float* weight = nullptr;  ///< [rows, columns]
  int64_t rows = 0;
  int64_t columns = 0;
  const BlockCodec* grid = nullptr;              ///< Target type; columns divide by its block.
  const LinearStatistics* statistics = nullptr;  ///< Null unless the method declared some.
  const void* prepared = nullptr;                ///< What `prepare` made of them.
  /// [rows, columns] or null: mean over tokens of (wanted output - weight x) x^T, where inputs x
  /// are those behind quantized layers and wanted outputs those of the model as it was.
  const float* shortfall = nullptr;
  const EncodeKernels* kernels = nullptr;
};

/// A group of linear layers that share their inputs, before anything of them is rounded.
struct SmoothRequest {
  struct Layer {
    const float* weight = nullptr;  ///< [rows, columns]
    int64_t rows = 0;
    const BlockCodec* grid = nullptr;
  };
  std::vector<Layer> layers{};
  int64_t columns = 0;
  /// Empty, or [columns]: channels with the same number must get the same scale.
  std::vector<int64_t> tied{};
  const LinearStatistics* statistics = nullptr;
  const MethodOptions* options = nullptr;
  const EncodeKernels* kernels = nullptr;
};

struct Method {
  std::string name;  ///< "nearest": the value of --method.
  std::string summary;
  std::vector<Statistic> needs;
  /// True if the method takes blocks apart, so that the target type must have a grid.
  bool needs_grid = false;
  /// It is what llama-quantize does with an importance matrix, for which its mixes differ.
  bool by_importance = false;
  bool heeds_shortfall = false;  ///< `encode` looks at EncodeRequest::shortfall.
  /// Once for all weights that share an input: what every `encode` is then given as `prepared`, a
  /// factor of the Hessian for example. Puts what the report should say into `facts`. May be null.
  std::shared_ptr<const void> (*prepare)(const LinearStatistics& statistics, int64_t columns,
                                         const MethodOptions& options, Json& facts) = nullptr;
  /// Writes the encoded rows to `out` and adds their distortion to `error`. Rows are independent:
  /// the stage may pass any number of a tensor's rows at a time, from several threads, and the
  /// bytes must not depend on it.
  void (*encode)(const EncodeRequest& request, std::byte* out, Distortion* error) = nullptr;
  /// For methods that scale channels before rounding (quantize/smoothing.h): [columns] positive
  /// factors by which the weights' columns are multiplied and the inputs divided.
  std::vector<float> (*smooth)(const SmoothRequest& request, Json& facts) = nullptr;
  std::vector<Statistic> smooth_needs{};  ///< What `smooth` looks at besides magnitudes.
  /// `smooth` also where the scales go into the rows of a linear layer before, not into a norm.
  bool smooths_linear = false;
};

/// True if the method wants to know a layer's inputs, so that it needs calibration data.
bool needs_calibration(const Method& method);
bool needs_statistic(const Method& method, Statistic statistic);
bool smooth_needs(const Method& method, Statistic statistic);

const std::vector<const Method*>& methods();
/// Throws Error(kUsage) naming the nearest known method.
const Method& method_by_name(const std::string& name);
std::vector<std::string> method_names();
/// The names of methods that have `smooth`.
std::vector<std::string> smoother_names();
/// `values` [columns], each replaced by the mean of those that must get the same scale.
std::vector<float> tied_means(const std::vector<float>& values, const std::vector<int64_t>& tied);

/// The kernels for the instruction set in use (compress/runtime/decoder.h).
const EncodeKernels& encode_kernels();
/// The codec's own rounding of one row, through a kernel where there is one; the same bytes.
void encode_row(const EncodeKernels& kernels, const BlockCodec& grid, const float* row,
                int64_t columns, std::byte* out);
/// Adds what `encoded` lost of `row`. `scratch`: [columns] floats.
void add_distortion(const EncodeKernels& kernels, const BlockCodec& grid, const float* row,
                    const std::byte* encoded, int64_t columns, float* scratch, Distortion* sum);

}  // namespace slmc
