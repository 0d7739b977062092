// The torch-free face of libslmc_torch.so, which is opened by dlopen at the first run that needs
// LibTorch. Everything behind it may include LibTorch headers; nothing in front of it may.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/core/stage.h"

namespace slmc {

class BlockRunner;       // quantize/block_runner.h
struct CalibrationData;  // quantize/calibration.h
class WeightSource;
/// Raised with every change of TorchModule or of what it exchanges, so that a stale
/// libslmc_torch.so is refused, not run.
constexpr uint32_t kTorchModuleAbi = 8;

/// Bytes of the machine's memory that LibTorch takes by itself; CUDA's libraries are mapped, and a
/// part of them touched.
constexpr uint64_t libtorch_bytes(bool on_cpu) { return on_cpu ? 110'000'000 : 1'500'000'000; }

struct TrainingJob;       // distill/training.h
struct TrainingForecast;  // distill/training.h

class TorchModule {
 public:
  virtual ~TorchModule() = default;
  virtual std::string version() const = 0;
  /// Throws Error(kUnsupported) in one line unless LibTorch can compute on `device`: "cpu", "cuda"
  /// (the first) or "cuda:N".
  virtual void check_device(const std::string& device) const = 0;
  /// float32 logits [n, vocab] of LibTorch's decoder; of an encoder what its head gives, for ids of
  /// these segments (`types` empty: all 0).
  virtual std::vector<float> logits(const WeightSource& weights, std::span<const int32_t> ids,
                                    std::span<const int32_t> types, const std::string& device) = 0;
  /// The group of the ranks in `context`, joined at the first call and left when nobody holds it.
  /// Throws Error(kResources) if they do not come together in five minutes, Error(kUnsupported) if
  /// one has no `context.device`, or not the NCCL that was asked for.
  virtual std::shared_ptr<RankGroup> ranks(const Context& context) = 0;
  /// Trains; returns the training part of the report. Writes checkpoints and the final safetensors
  /// folder as the job says.
  virtual Report train(const TrainingJob& job, Context& context) = 0;
  /// Runs a few passes of the job, of which nothing stays, and says what they foretell of the
  /// whole.
  virtual TrainingForecast forecast(const TrainingJob& job, Context& context) = 0;
  /// Runs a model over `data`'s windows, block by block, on the device and in the precision that
  /// `data.forward` says; the arguments are BlockRunner::create's.
  virtual std::unique_ptr<BlockRunner> block_runner(const WeightSource& model,
                                                    const CalibrationData& data,
                                                    const std::string& spill_folder) = 0;
};

/// Opens the module: `context.torch_dir`, else SLMC_TORCH (read by the program into torch_dir),
/// else the path recorded at build, else an importable `torch`. The first call decides for the
/// process whether CUDA's libraries are opened: for `context.device`. Throws Error(kUnsupported)
/// saying how to get LibTorch, or that it was opened for the cpu alone.
TorchModule& torch_module(const Context& context);
/// "" if it can be opened, else the reason.
std::string torch_unavailable_reason(const Context& context);
/// Throws Error(kUnsupported) unless LibTorch can be opened and can compute on `context.device`;
/// nothing if that is the cpu.
void check_torch_device(const Context& context);

}  // namespace slmc
