// Element types and read-only tensor views. A type's number is its ggml type id where it has one,
// so a GGUF needs no second table; what a block type means is said by its codec (formats/blocks/).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace slmc {

enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBF16 = 30,
  kU8 = 1000,
  kBool = 1001,
  kU16 = 1002,
  kU32 = 1003,
  kU64 = 1004,  // Only in safetensors.
};

/// "f32", "q4_0". Throws Error(kUnsupported) for a number that has no name here.
std::string_view dtype_name(DType type);
/// The reverse; throws Error(kUsage) naming the nearest known type.
DType dtype_from_name(std::string_view name);
bool dtype_known(DType type);
/// Elements a block (1 for plain types) and bytes a block.
int64_t dtype_block(DType type);
int64_t dtype_block_bytes(DType type);
/// Bytes of a row of `n` elements. Throws Error(kBadInput) if n is not a multiple of the block.
uint64_t dtype_row_bytes(DType type, int64_t n);
/// True for f32, f16, bf16.
bool dtype_is_float(DType type);

/// A read-only tensor, row-major, rows of shape.back() elements. May be unaligned. `owner` keeps
/// the bytes alive.
struct TensorView {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::shared_ptr<const void> owner;

  int64_t elements() const;
  int64_t columns() const { return shape.empty() ? 1 : shape.back(); }
  int64_t rows() const { return columns() == 0 ? 0 : elements() / columns(); }
  uint64_t row_bytes() const { return dtype_row_bytes(dtype, columns()); }
  uint64_t bytes() const { return row_bytes() * static_cast<uint64_t>(rows()); }
  const std::byte* row(int64_t index) const {
    return data + row_bytes() * static_cast<uint64_t>(index);
  }
};

int64_t element_count(const std::vector<int64_t>& shape);

}  // namespace slmc
