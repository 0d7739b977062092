// Where each byte of a checkpoint to be written will lie. Internals of ModelWriter.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "formats/compressed_tensors.h"
#include "formats/family.h"
#include "formats/model_writer.h"

namespace slmc {

/// A tensor as a file will have it: one canonical tensor, several fused, or a carried one.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
  size_t file = 0;
  uint64_t offset = 0;                     // In that file.
  const CarriedTensor* carried = nullptr;  // In the OutputSpec, or in `made`.
  DType holds = DType::kF32;               // Of the canonical tensors in it.
};

struct OutputSlot {
  OutputTensor tensor;
  FilePlace layout;
  size_t stored = 0;  // Of which stored tensor this is all or a part.
  uint64_t bytes = 0;
  std::optional<GroupWeight> group{};  // Then its parts are the stored tensors from `stored` on.
};

struct OutputFile {
  std::string name;    // In the folder; empty for a GGUF.
  std::string header;  // The file's first bytes.
  uint64_t size = 0;
};

struct OutputLayout {
  bool folder = false;
  std::vector<OutputSlot> slots;  // In canonical order, parallel to the given hashes.
  std::vector<StoredTensor> stored;
  std::vector<CarriedTensor> made;  // What the architecture says as tensors.
  std::vector<OutputFile> files;
  std::vector<std::pair<std::string, std::string>>
      texts;  // config.json and the like, in the folder.
  std::vector<std::pair<size_t, std::string>>
      extra;  // File and bytes written right behind the header (GGUF's rope factors).
  uint64_t total() const;
  /// Where a slot's first byte lies in its file; for a transposed one, the whole tensor's.
  uint64_t offset(const OutputSlot& slot) const;
};

/// True if `path` names a GGUF.
bool is_gguf_path(const std::string& path);

/// `hashes`: of the tensors in canonical order; empty while they are not known, which gives headers
/// of the same size with zeros. Checks names, shapes and types. Throws Error(kUnsupported) for a
/// type or architecture that the container cannot hold.
OutputLayout output_layout(const OutputSpec& spec, const std::vector<std::string>& hashes = {});

/// The metadata value under which hashes travel: "name=hash,name=hash", canonical names. Blank
/// hashes are zeros.
std::string join_hashes(const std::vector<OutputSlot>& slots,
                        const std::vector<std::string>& hashes);
constexpr const char* kHashesKey = "slmc.tensor_hashes";

/// `layout` comes with its slots and stored tensors; these place them.
void gguf_layout(const OutputSpec& spec, const Family& family,
                 const std::vector<std::string>& hashes, OutputLayout& layout);
/// A shard holds at most `shard_bytes` of tensors, or one tensor that is larger.
void safetensors_layout(const OutputSpec& spec, const Family& family,
                        const std::vector<std::string>& hashes, OutputLayout& layout,
                        uint64_t shard_bytes = 5'000'000'000);

}  // namespace slmc
