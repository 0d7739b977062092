// Calibration's forward pass through LibTorch, on any device it has (quantize/block_runner.h).
#pragma once

#include <memory>
#include <string>

#include "quantize/block_runner.h"

namespace slmc::libtorch {

std::unique_ptr<BlockRunner> make_block_runner(const WeightSource& model,
                                               const CalibrationData& data,
                                               const std::string& spill_folder);

}  // namespace slmc::libtorch
