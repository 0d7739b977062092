#include "compress/runtime/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/isa.h"
#include "formats/block_codec.h"
#include "formats/group_types.h"

namespace slmc {

using kernels::group_bytes;
using kernels::kBlock;
using kernels::Kind;
using kernels::kLanes;
using kernels::Packing;
using kernels::packing_of;

namespace {

Kind kind_of(const TensorView& view, const std::string& name) {
  switch (view.dtype) {
    case DType::kF32:
      return Kind::kF32;
    case DType::kF16:
      return Kind::kF16;
    case DType::kBF16:
      return Kind::kBF16;
    case DType::kQ8_0:
    case DType::kQ5_0:
    case DType::kIQ4_NL:
      return Kind::kQ8;
    case DType::kQ4_0:
      return Kind::kQ4;
    case DType::kIQ4_XS:
      return Kind::kSub32;
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ5_K:
      return Kind::kSub32Min;
    case DType::kQ4_K:
      return Kind::kSuper4;
    case DType::kQ3_K:
    case DType::kQ6_K:
      return Kind::kSuper8;
    case DType::kQ2_K:
      return Kind::kSuper8Min;
    default:
      break;
  }
  const BlockCodec* codec = find_block_codec(view.dtype);
  if (codec != nullptr && codec->layout != nullptr && codec->layout->sub % kBlock == 0)
    return codec->layout->minimum ? Kind::kSub32Min : Kind::kSub32;  // compressed-tensors' groups.
  throw_unsupported(cat("tensor '", name, "': the runtime has no product for ",
                        dtype_name(view.dtype), "; convert the model first"));
}

int64_t bytes_of_panel(Kind kind, int64_t k) {
  if (kind == Kind::kF32) return k * kLanes * 4;
  const Packing packing = packing_of(kind);
  if (packing.span == 0) return k * kLanes * 2;
  return (k + packing.span - 1) / packing.span * group_bytes(packing);
}

template <typename Element>
void pack_plain(const std::byte* const* rows, int64_t count, int64_t k, std::byte* panel) {
  for (int64_t lane = 0; lane < count; ++lane) {
    for (int64_t i = 0; i < k; ++i) {
      std::memcpy(panel + (i * kLanes + lane) * static_cast<int64_t>(sizeof(Element)),
                  rows[lane] + i * static_cast<int64_t>(sizeof(Element)), sizeof(Element));
    }
  }
}

/// The codes of 32 k of one row.
void pack_codes(const Packing& packing, const int8_t* codes, int64_t lane, std::byte* to) {
  if (packing.block == 512) {
    for (int64_t v = 0; v < 8; ++v) std::memcpy(to + v * 64 + lane * 4, codes + v * 4, 4);
    return;
  }
  for (int64_t v = 0; v < 4; ++v) {
    for (int64_t j = 0; j < 4; ++j) {
      const int low = codes[v * 8 + j] + packing.bias, high = codes[v * 8 + 4 + j] + packing.bias;
      to[v * 64 + lane * 4 + j] = static_cast<std::byte>(low | high << 4);
    }
  }
}

/// One block of the file at `k`, its header's share and its codes.
void pack_block(Kind kind, const BlockLayout& layout, const BlockParts& parts, int64_t k,
                int64_t lane, std::byte* panel) {
  const Packing packing = packing_of(kind);
  const auto group = [&](int64_t at) { return panel + at / packing.span * group_bytes(packing); };
  const auto header = [&](int64_t at, int64_t offset, const void* from, size_t size) {
    std::memcpy(group(at) + offset + lane * static_cast<int64_t>(size), from, size);
  };
  if (packing.span == 256) {
    header(k, 0, &parts.d, 2);
    header(k, 2 * kLanes, &parts.dmin, 2);
    for (int64_t j = 0; j < layout.subs; ++j) {
      header(k, 64 + j * kLanes, &parts.scales[j], 1);
      if (packing.minimum) header(k, 64 + (layout.subs + j) * kLanes, &parts.minimums[j], 1);
    }
  } else if (packing.span == 64) {
    header(k, k % 64 / kBlock * 2 * kLanes, &parts.d, 2);
  }
  for (int64_t i = 0; i < layout.block; i += kBlock) {
    if (packing.span == 32) {
      const float scale = sub_scale(parts, i / layout.sub);
      const float minimum = sub_minimum(layout, parts, i / layout.sub);
      header(k + i, 0, &scale, 4);
      if (packing.minimum) header(k + i, 4 * kLanes, &minimum, 4);
    }
    pack_codes(packing, parts.codes + i, lane,
               group(k + i) + packing.header + (k + i) % packing.span / kBlock * packing.block);
  }
}

void pack_blocks(Kind kind, DType type, const std::byte* const* rows, int64_t count, int64_t k,
                 std::byte* panel) {
  const BlockCodec& codec = block_codec(type);
  BlockParts parts;
  for (int64_t lane = 0; lane < count; ++lane) {
    for (int64_t b = 0; b < k / codec.block; ++b) {
      codec.layout->unpack(rows[lane] + b * codec.block_bytes, parts);
      pack_block(kind, *codec.layout, parts, b * codec.block, lane, panel);
    }
  }
}

}  // namespace

PackedMatrix::PackedMatrix(const TensorView& view, const std::string& name)
    : kind_(kind_of(view, name)),
      rows_(view.rows()),
      k_(view.columns()),
      panel_bytes_(bytes_of_panel(kind_, k_)) {
  rounds_inputs_ = view.dtype == kI8A8_Row || view.dtype == kI8S8_Row;
  if (view.dtype == kI8S8_Row) input_scale_ = slmc::input_scale(view);
  memory_ = PagedMemory(static_cast<uint64_t>(panels() * panel_bytes_), true);
  parallel_ranges(panels(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const std::byte* rows[kLanes];
      const int64_t count = std::min(kLanes, rows_ - p * kLanes);
      for (int64_t lane = 0; lane < count; ++lane) rows[lane] = view.row(p * kLanes + lane);
      std::byte* panel = memory_.data() + p * panel_bytes_;
      if (kind_ == Kind::kF32) {
        pack_plain<float>(rows, count, k_, panel);
      } else if (!quantized()) {
        pack_plain<uint16_t>(rows, count, k_, panel);
      } else {
        pack_blocks(kind_, view.dtype, rows, count, k_, panel);
      }
    }
  });
}

void PackedMatrix::decode_row(int64_t row, float* out) const {
  const std::byte* panel = memory_.data() + row / kLanes * panel_bytes_;
  kernels::decode_lane(kind_, panel, row % kLanes, k_, out);
}

namespace {

/// A piece of one product: panels times a range of tokens.
struct Piece {
  const Product* product;
  int64_t panel_begin, panel_end, token_begin, token_end;
};

std::vector<Piece> pieces_of(const ActivationRows& rows, std::span<const Product> products) {
  constexpr int64_t kTokens = 256;  // Enough to pay for decoding the panels again.
  int64_t panels = 0;
  for (const Product& product : products) panels += product.matrix->panels();
  const int64_t spans = (rows.tokens + kTokens - 1) / kTokens;
  const int64_t span = (rows.tokens + spans - 1) / spans;
  // Four pieces a thread even out unequal cores; pairs of panels fill the register tiles.
  const int64_t grain = std::max<int64_t>(2, (panels * spans / (threads() * 4) + 1) / 2 * 2);
  std::vector<Piece> pieces;
  for (const Product& product : products) {
    for (int64_t p = 0; p < product.matrix->panels(); p += grain) {
      for (int64_t t = 0; t < rows.tokens; t += span) {
        pieces.push_back({&product, p, std::min(p + grain, product.matrix->panels()), t,
                          std::min(t + span, rows.tokens)});
      }
    }
  }
  return pieces;
}

void run_piece(const ActivationRows& rows, const Piece& piece) {
  static thread_local std::vector<float> scratch(kernels::kScratch + 16);
  const auto aligned = (reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64;
  const PackedMatrix& matrix = *piece.product->matrix;
  const int64_t k = matrix.k(), first = piece.token_begin, tokens = piece.token_end - first;
  kernels::Matmul job{};
  job.kind = matrix.kind();
  job.weights = matrix.data();
  job.panel_bytes = matrix.panel_bytes();
  job.panel_begin = piece.panel_begin;
  job.panel_end = piece.panel_end;
  job.rows = matrix.rows();
  job.k = k;
  job.x = rows.x ? rows.x + first * rows.stride : nullptr;
  job.x_stride = rows.stride;
  job.tokens = tokens;
  kernels::QuantizedRows quantized{};
  if (rows.quantized && matrix.quantized()) {
    quantized = {rows.quantized->codes + first * k, rows.quantized->scales + first * (k / kBlock),
                 rows.quantized->sums + first * (k / 16)};
    job.quantized = &quantized;
  }
  job.out = piece.product->out + first * piece.product->stride;
  job.out_stride = piece.product->stride;
  job.scratch = reinterpret_cast<float*>(aligned);
  kernel_set().matmul(job);
  if (!piece.product->bias) return;
  const int64_t begin = piece.panel_begin * kLanes,
                end = std::min(piece.panel_end * kLanes, matrix.rows());
  for (int64_t t = 0; t < tokens; ++t) {
    float* out = job.out + t * job.out_stride;
    for (int64_t row = begin; row < end; ++row) out[row] += piece.product->bias[row];
  }
}

}  // namespace

void multiply(const ActivationRows& rows, std::span<const Product> products) {
  const std::vector<Piece> pieces = pieces_of(rows, products);
  int64_t work = 0;
  for (const Product& product : products)
    work += product.matrix->rows() * product.matrix->k() * rows.tokens;
  if (work < 65536) {  // A few microseconds: waking threads would cost as much.
    for (const Piece& piece : pieces) run_piece(rows, piece);
    return;
  }
  parallel_for(static_cast<int64_t>(pieces.size()),
               [&](int64_t i) { run_piece(rows, pieces[static_cast<size_t>(i)]); });
}

uint64_t packed_bytes(DType type, int64_t rows, int64_t k, const std::string& name) {
  TensorView view;
  view.dtype = type;
  const int64_t panels = (rows + kLanes - 1) / kLanes;
  return static_cast<uint64_t>(panels * bytes_of_panel(kind_of(view, name), k));
}

}  // namespace slmc
