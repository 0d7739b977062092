// pytorch_model.bin: a zip archive (formats/zip.h) of a pickle that describes tensors
// (formats/pickle.h) and their bytes.
#pragma once

#include <string>

#include "formats/safetensors.h"

namespace slmc {

/// A file written by torch.save since PyTorch 1.6, as views into it; nothing is copied. Tensors may
/// share bytes. Throws Error(kBadInput) and Error(kUnsupported): for PyTorch's older format,
/// anything in the pickle but tensors, tensors that are not contiguous, and big-endian files.
SafetensorsFile open_pytorch_file(const std::string& path);

}  // namespace slmc
