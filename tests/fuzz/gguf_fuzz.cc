// Any bytes as a GGUF: an Error or a model whose every row decodes; never a crash.
#include <vector>

#include "compress/core/error.h"
#include "formats/block_codec.h"
#include "formats/model.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const slmc::fuzz::MemoryFile file(data, size);
  try {
    const auto model = slmc::Model::open(file.path());
    for (const slmc::TensorInfo& info : model->tensors()) {
      if (slmc::find_block_codec(info.dtype) == nullptr) continue;
      std::vector<float> values(static_cast<size_t>(slmc::element_count(info.shape)));
      model->read_rows(info.name, 0, static_cast<int64_t>(values.size()) / info.shape.back(),
                       values.data());
      model->tensor_hash(info.name);
    }
    model->assets();
  } catch (const slmc::Error& error) {
    if (error.code() == slmc::ExitCode::kBug) throw;
  }
  return 0;
}
