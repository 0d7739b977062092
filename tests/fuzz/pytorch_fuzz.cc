// Any bytes as a file of torch.save: an Error, or tensors that lie inside the file.
#include <cstdlib>

#include "compress/core/error.h"
#include "formats/pytorch.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const slmc::fuzz::MemoryFile file(data, size);
  try {
    for (const slmc::SafetensorsEntry& entry : slmc::open_pytorch_file(file.path()).tensors) {
      if (entry.offset > size || entry.bytes > size - entry.offset) std::abort();
    }
  } catch (const slmc::Error& error) {
    if (error.code() == slmc::ExitCode::kBug) throw;
  }
  return 0;
}
