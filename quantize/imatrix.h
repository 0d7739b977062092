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
  std::map<std::string, Entry> entries;  ///< By the canonical name of the weight.
  std::vector<std::string> datasets;
  int64_t chunk_count = 0, chunk_size = 0;

  /// Throws Error(kBadInput) for a file that is not one.
  static ImportanceMatrix open(const std::string& path);
  void write(const std::string& path, bool force) const;
  /// Throws Error(kBadInput) naming the first layer that the model lacks or that has another width.
  void check(const Model& model, const std::string& path) const;
};

}  // namespace slmc
