// Any bytes as a safetensors file: an Error, or tensors that lie inside the file.
#include <cstdlib>

#include "compress/core/error.h"
#include "formats/safetensors.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const slmc::fuzz::MemoryFile file(data, size);
  try {
    const slmc::SafetensorsFile opened = slmc::SafetensorsFile::open(file.path());
    for (const slmc::SafetensorsEntry& entry : opened.tensors) {
      if (entry.offset > size || entry.bytes > size - entry.offset) std::abort();
      const slmc::TensorView view{opened.file->data() + entry.offset, entry.dtype, entry.shape,
                                  opened.file};
      if (view.elements() > 0 && view.bytes() != entry.bytes) std::abort();
    }
  } catch (const slmc::Error& error) {
    if (error.code() == slmc::ExitCode::kBug) throw;
  }
  return 0;
}
