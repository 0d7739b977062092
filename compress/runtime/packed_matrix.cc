#include "compress/runtime/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/isa.h"

namespace slmc {

using kernels::kBlock;
using kernels::Kind;
using kernels::kLanes;
using kernels::kQ4Group;
using kernels::kQ8Group;

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
      return Kind::kQ8;
    case DType::kQ4_0:
      return Kind::kQ4;
    default:
      break;
  }
  throw_unsupported(cat("tensor '", name,
                        "': the runtime multiplies f32, f16, bf16, q8_0 and q4_0, found ",
                        dtype_name(view.dtype), "; convert the model first"));
}

int64_t bytes_of_panel(Kind kind, int64_t k) {
  const int64_t groups = (k + 63) / 64;
  switch (kind) {
    case Kind::kF32:
      return k * kLanes * 4;
    case Kind::kF16:
    case Kind::kBF16:
      return k * kLanes * 2;
    case Kind::kQ8:
      return groups * kQ8Group;
    case Kind::kQ4:
      return groups * kQ4Group;
  }
  return 0;
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

/// ggml's q8_0 block: f16 scale, 32 int8.
void pack_q8(const std::byte* const* rows, int64_t count, int64_t k, std::byte* panel) {
  for (int64_t lane = 0; lane < count; ++lane) {
    for (int64_t b = 0; b < k / kBlock; ++b) {
      const std::byte* block = rows[lane] + b * 34;
      std::byte* group = panel + b / 2 * kQ8Group;
      std::memcpy(group + (b % 2 * kLanes + lane) * 2, block, 2);
      for (int64_t v = 0; v < 8; ++v)
        std::memcpy(group + 64 + b % 2 * 512 + v * 64 + lane * 4, block + 2 + v * 4, 4);
    }
  }
}

/// ggml's q4_0 block: f16 scale, 16 bytes; byte j holds elements j (low) and j + 16 (high), biased
/// by 8.
void pack_q4(const std::byte* const* rows, int64_t count, int64_t k, std::byte* panel) {
  const auto code = [](const std::byte* block, int64_t j) {
    const auto byte = static_cast<uint32_t>(block[2 + j % 16]);
    return j < 16 ? byte & 15u : byte >> 4;
  };
  for (int64_t lane = 0; lane < count; ++lane) {
    for (int64_t b = 0; b < k / kBlock; ++b) {
      const std::byte* block = rows[lane] + b * 18;
      std::byte* group = panel + b / 2 * kQ4Group;
      std::memcpy(group + (b % 2 * kLanes + lane) * 2, block, 2);
      for (int64_t v = 0; v < 4; ++v) {
        for (int64_t j = 0; j < 4; ++j) {
          group[64 + b % 2 * 256 + v * 64 + lane * 4 + j] =
              static_cast<std::byte>(code(block, v * 8 + j) | code(block, v * 8 + 4 + j) << 4);
        }
      }
    }
  }
}

}  // namespace

PackedMatrix::PackedMatrix(const TensorView& view, const std::string& name)
    : kind_(kind_of(view, name)),
      rows_(view.rows()),
      k_(view.columns()),
      panel_bytes_(bytes_of_panel(kind_, k_)) {
  memory_ = PagedMemory(static_cast<uint64_t>(panels() * panel_bytes_), true);
  parallel_ranges(panels(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const std::byte* rows[kLanes];
      const int64_t count = std::min(kLanes, rows_ - p * kLanes);
      for (int64_t lane = 0; lane < count; ++lane) rows[lane] = view.row(p * kLanes + lane);
      std::byte* panel = memory_.data() + p * panel_bytes_;
      switch (kind_) {
        case Kind::kF32:
          pack_plain<float>(rows, count, k_, panel);
          break;
        case Kind::kF16:
        case Kind::kBF16:
          pack_plain<uint16_t>(rows, count, k_, panel);
          break;
        case Kind::kQ8:
          pack_q8(rows, count, k_, panel);
          break;
        case Kind::kQ4:
          pack_q4(rows, count, k_, panel);
          break;
      }
    }
  });
}

void PackedMatrix::decode_row(int64_t row, float* out) const {
  const std::byte* panel = memory_.data() + row / kLanes * panel_bytes_;
  const int64_t lane = row % kLanes;
  const auto half_at = [](const std::byte* at) {
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    return bits;
  };
  for (int64_t k = 0; k < k_; ++k) {
    const int64_t half = k / kBlock % 2, j = k % kBlock;
    switch (kind_) {
      case Kind::kF32:
        std::memcpy(out + k, panel + (k * kLanes + lane) * 4, 4);
        break;
      case Kind::kF16:
        out[k] = f16_to_float(half_at(panel + (k * kLanes + lane) * 2));
        break;
      case Kind::kBF16:
        out[k] = bf16_to_float(half_at(panel + (k * kLanes + lane) * 2));
        break;
      case Kind::kQ8: {
        const std::byte* group = panel + k / 64 * kQ8Group;
        const auto code =
            static_cast<int8_t>(group[64 + half * 512 + j / 4 * 64 + lane * 4 + j % 4]);
        out[k] =
            static_cast<float>(code) * f16_to_float(half_at(group + (half * kLanes + lane) * 2));
        break;
      }
      case Kind::kQ4: {
        const std::byte* group = panel + k / 64 * kQ4Group;
        const auto byte =
            static_cast<uint32_t>(group[64 + half * 256 + j / 8 * 64 + lane * 4 + j % 4]);
        const int32_t code = static_cast<int32_t>(j % 8 < 4 ? byte & 15u : byte >> 4) - 8;
        out[k] =
            static_cast<float>(code) * f16_to_float(half_at(group + (half * kLanes + lane) * 2));
        break;
      }
    }
  }
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
                 rows.quantized->sums + first * (k / kBlock)};
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

}  // namespace slmc
