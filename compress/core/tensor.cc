#include "compress/core/tensor.h"

#include <array>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

struct TypeFacts {
  DType type;
  std::string_view name;
  int64_t block;
  int64_t bytes;
};

// Sizes are those of ggml's block structs; what the bytes mean is the codec's business.
constexpr std::array<TypeFacts, 39> kTypes = {{
    {DType::kF32, "f32", 1, 4},
    {DType::kF16, "f16", 1, 2},
    {DType::kBF16, "bf16", 1, 2},
    {DType::kQ4_0, "q4_0", 32, 18},
    {DType::kQ4_1, "q4_1", 32, 20},
    {DType::kQ5_0, "q5_0", 32, 22},
    {DType::kQ5_1, "q5_1", 32, 24},
    {DType::kQ8_0, "q8_0", 32, 34},
    {DType::kQ2_K, "q2_k", 256, 84},
    {DType::kQ3_K, "q3_k", 256, 110},
    {DType::kQ4_K, "q4_k", 256, 144},
    {DType::kQ5_K, "q5_k", 256, 176},
    {DType::kQ6_K, "q6_k", 256, 210},
    {DType::kIQ4_NL, "iq4_nl", 32, 18},
    {DType::kIQ4_XS, "iq4_xs", 256, 136},
    {DType::kI8, "i8", 1, 1},
    {DType::kI16, "i16", 1, 2},
    {DType::kI32, "i32", 1, 4},
    {DType::kI64, "i64", 1, 8},
    {DType::kF64, "f64", 1, 8},
    {DType::kU8, "u8", 1, 1},
    {DType::kBool, "bool", 1, 1},
    {DType::kU16, "u16", 1, 2},
    {DType::kU32, "u32", 1, 4},
    {DType::kU64, "u64", 1, 8},
    // compressed-tensors (formats/group_types.h).
    {DType{2000}, "i4_g32", 32, 18},
    {DType{2001}, "i4_g64", 64, 34},
    {DType{2002}, "i4_g128", 128, 66},
    {DType{2003}, "i4_row", 32, 18},
    {DType{2010}, "u4_g32", 32, 20},
    {DType{2011}, "u4_g64", 64, 36},
    {DType{2012}, "u4_g128", 128, 68},
    {DType{2013}, "u4_row", 32, 20},
    {DType{2020}, "i8_g32", 32, 34},
    {DType{2021}, "i8_g64", 64, 66},
    {DType{2022}, "i8_g128", 128, 130},
    {DType{2023}, "i8_row", 32, 34},
    {DType{2024}, "i8a8_row", 32, 34},
    {DType{2025}, "i8s8_row", 32, 36},
}};

const TypeFacts* find(DType type) {
  for (const TypeFacts& facts : kTypes) {
    if (facts.type == type && !facts.name.empty()) return &facts;
  }
  return nullptr;
}

const TypeFacts& facts_of(DType type) {
  const TypeFacts* facts = find(type);
  if (facts == nullptr)
    throw_unsupported(
        cat("tensor type number ", static_cast<uint32_t>(type), " is not known to slmc"));
  return *facts;
}

}  // namespace

std::string_view dtype_name(DType type) { return facts_of(type).name; }

DType dtype_from_name(std::string_view name) {
  std::vector<std::string> names;
  for (const TypeFacts& facts : kTypes) {
    if (facts.name == name && !name.empty()) return facts.type;
    if (!facts.name.empty()) names.emplace_back(facts.name);
  }
  throw_usage(cat("unknown type '", name, "'", did_you_mean(name, names),
                  " (known: ", join(names, ", "), ")"));
}

bool dtype_known(DType type) { return find(type) != nullptr; }
int64_t dtype_block(DType type) { return facts_of(type).block; }
int64_t dtype_block_bytes(DType type) { return facts_of(type).bytes; }

uint64_t dtype_row_bytes(DType type, int64_t n) {
  const TypeFacts& facts = facts_of(type);
  if (n < 0 || n % facts.block != 0) {
    throw_bad_input(cat("a row of ", n, " elements does not divide into ", facts.name,
                        " blocks of ", facts.block));
  }
  return checked_multiply(static_cast<uint64_t>(n / facts.block),
                          static_cast<uint64_t>(facts.bytes), "row bytes");
}

bool dtype_is_float(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

int64_t element_count(const std::vector<int64_t>& shape) {
  uint64_t count = 1;
  for (const int64_t extent : shape) {
    if (extent < 0) throw_bad_input(cat("negative extent in shape ", shape_text(shape)));
    count = checked_multiply(count, static_cast<uint64_t>(extent),
                             "elements of shape " + shape_text(shape));
  }
  if (count > static_cast<uint64_t>(INT64_MAX))
    throw_bad_input(cat("shape ", shape_text(shape), " has too many elements"));
  return static_cast<int64_t>(count);
}

int64_t TensorView::elements() const { return element_count(shape); }

}  // namespace slmc
