// Writing a checkpoint: GGUF when the path ends in ".gguf", else a Hugging Face folder. Rows are
// given in canonical order and type; the writer maps names and layout to the container's. Nothing
// appears under the final name before finish().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/tensor.h"
#include "formats/model.h"

namespace slmc {

struct OutputTensor {
  std::string name;  ///< Canonical.
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
};

struct OutputSpec {
  std::string path;
  Architecture arch;
  Json config;  ///< Starting point of config.json (the source's); the family rewrites what the
                ///< architecture says.
  Assets assets;
  std::vector<OutputTensor> tensors;
  std::string name;                     ///< general.name; empty: the output's name.
  std::optional<uint32_t> file_type{};  ///< general.file_type; unset: by the type of most bytes.
  std::vector<std::pair<std::string, std::string>>
      metadata;  ///< Provenance, "slmc.*": GGUF keys, safetensors __metadata__. The same in a
                 ///< resumed run.
  std::string binding{};  ///< What a resumed run must share besides the files' headers and texts.
  bool force = false;
  bool resume = false;  ///< Go on with the partial output of a killed run, if its header is the
                        ///< same; keep it when this run fails.
};

class ModelWriter {
 public:
  /// Checks the output path, names and shapes, that the container can hold each type (safetensors:
  /// f32, f16, bf16), reserves disk space, writes the header. Throws Error before anything is
  /// created where it can be known.
  static std::unique_ptr<ModelWriter> create(OutputSpec spec);
  virtual ~ModelWriter() = default;

  /// Bytes the finished file or files will have.
  virtual uint64_t total_bytes() const = 0;
  /// With `resume`: true if this tensor was completed by the run before.
  virtual bool done(const std::string& name) const = 0;
  /// Encoded rows [row, row + count); each tensor's rows come in ascending order without gaps.
  /// Different tensors may interleave. When a tensor's last row has come it is journalled as done.
  virtual void write_rows(const std::string& name, int64_t row, int64_t count,
                          const void* data) = 0;
  void write(const std::string& name, const TensorView& view);
  /// Rows [row, row + count) of a tensor that is done, as they were given: how a resumed run goes
  /// on from what an earlier one decided.
  virtual void read_back(const std::string& name, int64_t row, int64_t count, void* out) const = 0;
  /// Hash of the canonical bytes of each tensor as given, {name, hash}.
  virtual std::vector<std::pair<std::string, std::string>> hashes() const = 0;
  /// Syncs, reopens the output through Model::open, compares every tensor's bytes with what was
  /// given ("written = meant"), lets `check` look at the reopened model (it throws to refuse it),
  /// renames.
  virtual void finish(const std::function<void(const Model&)>& check) = 0;
  void finish() { finish({}); }
};

/// What llama.cpp reads as f32 only: vectors, and the tables of positions and token types, which it
/// adds as they are.
bool gguf_keeps_f32(const std::string& name, const std::vector<int64_t>& shape);
/// The type in which a container keeps a tensor that is wanted as `wanted`: a GGUF (path ending in
/// ".gguf") keeps some in f32, a safetensors folder holds f32, f16 and bf16 only. Throws
/// Error(kUnsupported) for a type that cannot be held at all.
DType container_dtype(const std::string& path, const std::string& name,
                      const std::vector<int64_t>& shape, DType wanted);

/// Bytes of the file or folder that `spec` would give, without writing.
uint64_t predicted_output_bytes(const OutputSpec& spec);

}  // namespace slmc
