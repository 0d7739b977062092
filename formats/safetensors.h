// The safetensors container: a JSON header with names, types, shapes and offsets, then the bytes.
// Reading one file or a sharded folder.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/mapped_file.h"
#include "compress/core/tensor.h"

namespace slmc {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  ///< From the start of the file.
  uint64_t bytes = 0;
};

/// A parsed file. The header is at most 100 MB and without duplicate keys; the tensors cover the
/// data section without hole or overlap. Throws Error(kBadInput) naming the file, tensor and
/// offset; Error(kUnsupported) for element types that slmc does not know (float8).
struct SafetensorsFile {
  std::vector<SafetensorsEntry> tensors;  ///< In order of offset.
  std::vector<std::pair<std::string, std::string>> metadata;
  std::shared_ptr<const MappedFile> file;
  static SafetensorsFile open(const std::string& path);
};

/// The files of a folder: model.safetensors, or the shards that model.safetensors.index.json names;
/// where neither is there, pytorch_model.bin or its shards. A shard's name must be a plain file
/// name, and the file must lie in the folder (or, in a Hugging Face cache, in its blobs folder);
/// each tensor must be where the index says.
std::vector<SafetensorsFile> open_safetensors_folder(const std::string& folder);

/// The bytes before the data section, given tensors in order whose `offset` is relative to the data
/// section. Padded with spaces to a multiple of 64 bytes, so that mapped data is aligned.
std::string safetensors_header(const std::vector<SafetensorsEntry>& tensors,
                               const std::vector<std::pair<std::string, std::string>>& metadata);

}  // namespace slmc
