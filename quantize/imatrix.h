// Importance matrices: the mean square of every layer's inputs, as a file that llama.cpp and slmc
// read and write alike. Source: llama.cpp's tools/imatrix (GGUF form).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/model.h"

namespace slmc {

struct ImportanceMatrix {
  struct Entry {
    std::vector<float> mean_squares;  ///< [in]
    int64_t tokens = 0;
  };
  std::map<std::string, Entry> entries;  ///< By the canonical name of the weight, once adopted.
  std::vector<std::string> datasets;
  int64_t chunk_count = 0, chunk_size = 0;

  /// Throws Error(kBadInput) for a file that is not one.
  static ImportanceMatrix open(const std::string& path);
  void write(const std::string& path, bool force) const;
  /// Gives entries of tensors that a GGUF fuses (attn_qkv) to each of their parts, whose input is
  /// the same. Throws Error(kBadInput) naming the first layer that the model lacks or that has
  /// another width, or that the matrix has no layer of the model's last block.
  void adopt(const Model& model, const std::string& path);
  /// The reverse of the names, for programs that know the file's tensors only.
  void use_file_names(const Model& model);
};

}  // namespace slmc
