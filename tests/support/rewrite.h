// Writing an open checkpoint into the other container.
#pragma once

#include <string>

#include "formats/model.h"
#include "formats/model_writer.h"
#include "formats/tensor_stream.h"

namespace slmc::testing {

/// Writes the checkpoint at `from` as `to`, matrices as `dtype`.
inline void rewrite_model(const std::string& from, const std::string& to, DType dtype) {
  const auto model = Model::open(from, to);
  OutputSpec spec{.path = to,
                  .arch = model->arch(),
                  .config = model->config(),
                  .assets = model->assets(),
                  .tensors = {},
                  .name = "test",
                  .metadata = {},
                  .force = true};
  for (const TensorInfo& info : model->tensors())
    spec.tensors.push_back(
        {info.name, container_dtype(to, info.name, info.shape, dtype), info.shape});
  const auto writer = ModelWriter::create(spec);
  for (const OutputTensor& tensor : spec.tensors)
    write_converted(*model, tensor.name, tensor.dtype, *writer);
  writer->finish();
}

}  // namespace slmc::testing
