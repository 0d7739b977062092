// Internals of Model, shared by opening and reading. Not part of the public interface.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "compress/core/mapped_file.h"
#include "formats/compressed_tensors.h"
#include "formats/family.h"
#include "formats/model.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {

struct Model::Place {
  std::shared_ptr<const MappedFile> file{};
  uint64_t offset = 0;  // Of this tensor's first byte; of the whole, where that is transposed.
  DType dtype = DType::kF32;  // In the file.
  FilePlace layout{};
  // A canonical value is scale * stored + shift; such a tensor is read as f32.
  double scale = 1.0, shift = 0.0;
  // A group-quantized weight: its tensors in the file and where they lie. Then the above is unused
  // but for `dtype`.
  std::optional<GroupWeight> group{};
  struct Part {
    std::shared_ptr<const MappedFile> file;
    uint64_t offset = 0;
  };
  std::vector<Part> parts{};

  void read_group(int64_t row, int64_t count, std::byte* blocks) const {
    read_group_rows(
        *group, row, count,
        [this](size_t part, uint64_t at, uint64_t) {
          return parts[part].file->data() + parts[part].offset + at;
        },
        blocks);
  }
  bool adjusted() const { return scale != 1.0 || shift != 0.0; }
  bool plain() const {
    return layout.order == GgufRows::kSame && !layout.transposed && !adjusted() && !group;
  }
};

struct Model::Late {
  std::unique_ptr<const GgufFile> gguf;  // Keys are kept for the tokenizer.
  std::function<Assets()> read_assets;
  std::once_flag assets_once, tokenizer_once;
  Assets assets;
  std::shared_ptr<const Tokenizer> tokenizer;
};

/// The row in a GGUF (GgufRows::kRopePairs) that holds canonical row `row` of `rows`, in `heads`
/// heads.
inline int64_t gguf_row(int64_t row, int64_t rows, int64_t heads) {
  const int64_t dim = rows / heads;
  const int64_t head = row / dim, within = row % dim;
  return head * dim + 2 * (within % (dim / 2)) + within / (dim / 2);
}

}  // namespace slmc
