#include "compress/runtime/streamed_bytes.h"

#include <algorithm>
#include <map>
#include <string>

#include "compress/runtime/evaluate_windows.h"
#include "compress/runtime/packed_matrix.h"

namespace slmc {
namespace {

class Sums {
 public:
  void add(const std::string& name, uint64_t in_file, uint64_t repacked) {
    pieces_.pages = std::max(pieces_.pages, in_file);
    if (name.starts_with("blk.")) {
      uint64_t& block = blocks_[name.substr(0, name.find('.', 4))];
      pieces_.block = std::max(pieces_.block, block += repacked);
    } else {
      pieces_.head = std::max(pieces_.head, repacked);
    }
  }
  Pieces finish(const Architecture& arch) {
    pieces_.arch = &arch;
    return pieces_;
  }

 private:
  Pieces pieces_;
  std::map<std::string, uint64_t> blocks_;
};

}  // namespace

Pieces pieces_of(const Model& model) {
  Sums sums;
  for (const TensorInfo& tensor : model.tensors()) {
    const int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
    const int64_t rows = element_count(tensor.shape) / std::max<int64_t>(1, columns);
    sums.add(tensor.name, tensor.bytes,
             tensor.shape.size() < 2 ? static_cast<uint64_t>(columns) * sizeof(float)
                                     : packed_bytes(tensor.dtype, rows, columns, tensor.name));
  }
  return sums.finish(model.arch());
}

Pieces pieces_of(const Architecture& arch, const std::vector<PlanRow>& rows) {
  Sums sums;
  for (const PlanRow& row : rows) {
    const uint64_t bytes = row.bytes_after > 0 ? row.bytes_after : row.bytes_before;
    sums.add(row.tensor, bytes, repacked_bytes(bytes, element_count(row.new_shape)));
  }
  return sums.finish(arch);
}

uint64_t repacked_bytes(uint64_t in_file, int64_t elements) {
  const bool blocks = in_file < 2 * static_cast<uint64_t>(elements);
  return blocks ? in_file * 9 / 5 : in_file;  // Block types grow by it, q5_k most.
}

int64_t scratch_floats(const Architecture& arch, int64_t context) {
  const int64_t inner = arch.heads * arch.head_dim, kv = arch.kv_heads * arch.head_dim;
  return std::min<int64_t>(context, 512) * (2 * arch.hidden + 2 * inner + 2 * kv + 2 * arch.ffn);
}

uint64_t streamed_bytes(const std::vector<Pieces>& models, int64_t context, int64_t tokens) {
  uint64_t block = 0, heads = 0, pages = 0;
  int64_t states = 0, scratch = 0, logits = 0;
  for (const Pieces& model : models) {
    const Architecture& arch = *model.arch;
    block = std::max(block, model.block);
    heads += model.head;
    pages = std::max(pages, model.pages);
    states += arch.hidden;
    scratch = std::max(scratch,
                       2 * context * arch.kv_heads * arch.head_dim + scratch_floats(arch, context));
    logits += positions_at_once(arch.vocab) * arch.vocab;
  }
  const auto bytes = [](int64_t floats) { return static_cast<uint64_t>(floats) * sizeof(float); };
  const uint64_t window = std::max<uint64_t>(1, bytes(states * context));
  int64_t together = std::max<int64_t>(1, static_cast<int64_t>(kStateBytes / window));
  if (tokens > 0) together = std::min(together, std::max<int64_t>(1, tokens / context));
  const auto lanes = static_cast<uint64_t>(windows_in_flight(together));
  return window * static_cast<uint64_t>(together) + pages + bytes(scratch) * lanes +
         std::max(block, heads + bytes(logits) * lanes);
}

}  // namespace slmc
