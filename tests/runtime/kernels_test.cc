// Every kernel set gives the scalar set's bits, over ragged shapes and extreme values.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "compress/core/half.h"
#include "compress/core/random.h"
#include "compress/runtime/isa.h"
#include "compress/runtime/packed_matrix.h"
#include "formats/block_codec.h"

namespace slmc {
#if defined(SLMC_KERNELS_X86)
namespace kernels {
const Set& emulated_vnni_set();  // avx512vnni.cc compiled again, its one instruction replaced.
}
#endif
namespace {

using kernels::Set;

const std::vector<DType> kBlockTypes = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,   DType::kQ5_0,
                                        DType::kQ5_1, DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,
                                        DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS};

/// All that this processor can run, and the VNNI set by other instructions where it has AVX-512.
std::vector<const Set*> sets_under_test() {
  std::vector<const Set*> sets = available_sets();
#if defined(SLMC_KERNELS_X86)
  if (__builtin_cpu_supports("avx512bw")) sets.push_back(&kernels::emulated_vnni_set());
#endif
  return sets;
}

class KernelSet : public ::testing::TestWithParam<const Set*> {
 protected:
  const Set& set() const { return *GetParam(); }
  const Set& scalar() const { return kernels::scalar_set(); }
};

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Random values; the `wild` ones span all magnitudes that a sum of some thousand products can
/// hold.
std::vector<float> random_floats(size_t count, Random& random, bool wild = false) {
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(random.normal());
    if (wild) value = std::ldexp(value, static_cast<int>(random.below(100)) - 70);
    if (wild && random.below(16) == 0) value = random.below(2) != 0 ? 0.0f : -0.0f;
  }
  return values;
}

/// Where a block has floats, which random bytes might make infinite.
std::vector<int64_t> float_offsets(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

/// Random rows of any packable type; the codes take every value, -128 included.
struct RandomMatrix {
  std::vector<std::byte> bytes;
  TensorView view;

  RandomMatrix(DType type, int64_t rows, int64_t columns, Random& random, bool wild = false) {
    view.dtype = type;
    view.shape = {rows, columns};
    bytes.resize(view.bytes());
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
    const int64_t block_bytes = dtype_block_bytes(type);
    for (int64_t i = 0; i < rows * columns / dtype_block(type); ++i) {
      std::byte* at = bytes.data() + i * block_bytes;
      for (const int64_t offset : float_offsets(type)) {
        const float value = std::ldexp(static_cast<float>(random.normal()),
                                       wild ? static_cast<int>(random.below(24)) - 20 : 0);
        if (type == DType::kF32) {
          std::memcpy(at, &value, 4);
        } else {
          const uint16_t half = type == DType::kBF16 ? float_to_bf16(value) : float_to_f16(value);
          std::memcpy(at + offset, &half, 2);
        }
      }
    }
    view.data = bytes.data();
  }
};

struct Quantized {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  kernels::QuantizedRows rows() const { return {codes.data(), scales.data(), sums.data()}; }
};

Quantized quantize(const Set& set, const std::vector<float>& x, int64_t tokens, int64_t k) {
  Quantized result{std::vector<int8_t>(x.size()),
                   std::vector<float>(static_cast<size_t>(tokens * (k / 32))),
                   std::vector<int32_t>(static_cast<size_t>(tokens * (k / 16)))};
  for (int64_t t = 0; t < tokens; ++t) {
    set.quantize_row(x.data() + t * k, k, result.codes.data() + t * k,
                     result.scales.data() + t * (k / 32), result.sums.data() + t * (k / 16));
  }
  return result;
}

std::vector<float> product(const Set& set, const PackedMatrix& matrix, const std::vector<float>& x,
                           int64_t tokens, const Quantized* quantized) {
  std::vector<float> scratch(kernels::kScratch),
      out(static_cast<size_t>(tokens * matrix.rows()), -1.0f);
  const kernels::QuantizedRows rows = quantized ? quantized->rows() : kernels::QuantizedRows{};
  set.matmul({matrix.kind(), matrix.data(), matrix.panel_bytes(), 0, matrix.panels(), matrix.rows(),
              matrix.k(), x.data(), matrix.k(), tokens, quantized ? &rows : nullptr, out.data(),
              matrix.rows(), scratch.data()});
  return out;
}

TEST_P(KernelSet, MatmulEqualsScalar) {
  Random random(1);
  std::vector<DType> types = {DType::kF32, DType::kF16, DType::kBF16};
  types.insert(types.end(), kBlockTypes.begin(), kBlockTypes.end());
  for (const DType type : types) {
    const bool blocks = dtype_block(type) > 1;
    for (const int64_t rows : {1, 15, 33}) {
      for (const int64_t k : dtype_block(type) == 256 ? std::vector<int64_t>{256, 768}
                             : blocks                 ? std::vector<int64_t>{32, 96, 544}
                                                      : std::vector<int64_t>{1, 37, 64, 600}) {
        const bool wild = random.below(2) != 0;
        const RandomMatrix source(type, rows, k, random, wild);
        const PackedMatrix matrix(source.view, "test");
        for (const int64_t tokens : {1, 5, 21}) {
          const std::vector<float> x = random_floats(static_cast<size_t>(tokens * k), random, wild);
          EXPECT_TRUE(same_bits(product(set(), matrix, x, tokens, nullptr),
                                product(scalar(), matrix, x, tokens, nullptr)))
              << dtype_name(type) << " rows " << rows << " k " << k << " tokens " << tokens;
          if (!blocks) continue;
          const Quantized quantized = quantize(scalar(), x, tokens, k);
          EXPECT_TRUE(same_bits(product(set(), matrix, x, tokens, &quantized),
                                product(scalar(), matrix, x, tokens, &quantized)))
              << "int8 " << dtype_name(type) << " rows " << rows << " k " << k << " tokens "
              << tokens;
        }
      }
    }
  }
}

// All codes at their extremes, in every pairing of signs: the 16-bit sums of the AVX paths must not
// saturate.
TEST_P(KernelSet, IntegerExtremesAreExact) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
    for (const int code : {-128, -127, 127, 0x88, 0x00, 0xff}) {
      for (const int x_code : {-127, 127}) {
        std::vector<std::byte> block(static_cast<size_t>(dtype_block_bytes(type)),
                                     static_cast<std::byte>(code));
        const uint16_t one = 0x3c00;
        std::memcpy(block.data(), &one, 2);
        TensorView view{block.data(), type, {1, 32}, nullptr};
        const PackedMatrix matrix(view, "test");
        const Quantized x{std::vector<int8_t>(32, static_cast<int8_t>(x_code)),
                          {1.0f},
                          {16 * x_code, 16 * x_code}};
        const double weight_low =
            type == DType::kQ8_0 ? static_cast<int8_t>(code) : (code & 15) - 8;
        const double weight_high =
            type == DType::kQ8_0 ? static_cast<int8_t>(code) : ((code >> 4) & 15) - 8;
        const std::vector<float> out = product(set(), matrix, {}, 1, &x);
        EXPECT_EQ(out[0], 16.0 * x_code * (weight_low + weight_high))
            << dtype_name(type) << " code " << code;
      }
    }
  }
}

// A super-block with every code and every scale at its extreme: what is multiplied as floats must
// still be exact.
TEST_P(KernelSet, ScaledIntegerExtremesAreExact) {
  for (const DType type : {DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ6_K}) {
    const BlockLayout& layout = *block_codec(type).layout;
    for (const int code : {layout.low, layout.high}) {
      for (const int scale : {layout.scale_low, layout.scale_high}) {
        for (const int x_code : {-127, 127}) {
          BlockParts parts;
          parts.d = 0x3c00;
          parts.dmin = 0x3c00;
          std::memset(parts.codes, code, sizeof parts.codes);
          for (int j = 0; j < 16; ++j) {
            parts.scales[j] = static_cast<int8_t>(scale - (scale > 0 && j % 2 == 0 ? 1 : 0));
            parts.minimums[j] = static_cast<uint8_t>(layout.minimum ? layout.scale_high : 0);
          }
          std::vector<std::byte> block(static_cast<size_t>(dtype_block_bytes(type)));
          layout.pack(parts, block.data());
          TensorView view{block.data(), type, {1, 256}, nullptr};
          const PackedMatrix matrix(view, "test");
          const Quantized x{std::vector<int8_t>(256, static_cast<int8_t>(x_code)),
                            std::vector<float>(8, 1.0f), std::vector<int32_t>(16, 16 * x_code)};
          double expected = 0;
          for (int64_t j = 0; j < layout.subs; ++j)
            expected += static_cast<double>(layout.sub * x_code) *
                        (code * parts.scales[j] - parts.minimums[j]);
          EXPECT_EQ(product(set(), matrix, {}, 1, &x)[0], static_cast<float>(expected))
              << dtype_name(type) << " code " << code << " scale " << scale;
        }
      }
    }
  }
}

TEST_P(KernelSet, TileEqualsScalarAtAnyStep) {
  Random random(2);
  for (const int64_t panels : {1, 2, 3, 4}) {
    for (const int64_t tokens : {1, 3, 12, 14, 40}) {
      const int64_t k = 1 + static_cast<int64_t>(random.below(70)), step = panels * 16;
      const std::vector<float> w = random_floats(static_cast<size_t>(k * step), random),
                               x = random_floats(static_cast<size_t>(tokens * k), random);
      std::vector<float> a = random_floats(static_cast<size_t>(tokens * panels * 16), random),
                         b = a;
      const kernels::Tile job{w.data(), step,   16,       panels,      k,   x.data(),
                              k,        tokens, a.data(), panels * 16, true};
      kernels::Tile other = job;
      other.out = b.data();
      set().tile(job);
      scalar().tile(other);
      EXPECT_TRUE(same_bits(a, b)) << panels << " panels, " << tokens << " tokens, k " << k;
    }
  }
}

TEST_P(KernelSet, NormAndSiluEqualScalar) {
  Random random(3);
  for (const int64_t n : {1, 15, 16, 31, 64, 257}) {
    const auto x = random_floats(static_cast<size_t>(n), random, n > 16),
               weight = random_floats(static_cast<size_t>(n), random);
    std::vector<float> a(x.size()), b(x.size());
    set().rms_norm(x.data(), weight.data(), n, 1e-5f, a.data());
    scalar().rms_norm(x.data(), weight.data(), n, 1e-5f, b.data());
    EXPECT_TRUE(same_bits(a, b)) << n;
    a = b = random_floats(static_cast<size_t>(n), random, true);
    a[0] = b[0] = -200.0f;
    set().silu_multiply(a.data(), weight.data(), n);
    scalar().silu_multiply(b.data(), weight.data(), n);
    EXPECT_TRUE(same_bits(a, b)) << n;
    a = b;
    set().scale(a.data(), n, 0.3f);
    scalar().scale(b.data(), n, 0.3f);
    EXPECT_TRUE(same_bits(a, b)) << n;
  }
}

TEST_P(KernelSet, SoftmaxEqualsScalar) {
  Random random(4);
  for (int64_t valid = 1; valid <= 64; ++valid) {
    std::vector<float> a = random_floats(64, random), b;
    for (float& value : a) value *= valid % 7 == 0 ? 300.0f : 5.0f;
    b = a;
    float top_a = valid % 3 == 0 ? -std::numeric_limits<float>::infinity() : 1.5f, top_b = top_a;
    float sum_a = valid % 3 == 0 ? 0.0f : 2.5f, sum_b = sum_a;
    const float factor_a = set().softmax_block(a.data(), valid, 0.25f, &top_a, &sum_a);
    const float factor_b = scalar().softmax_block(b.data(), valid, 0.25f, &top_b, &sum_b);
    EXPECT_TRUE(same_bits(a, b)) << valid;
    EXPECT_EQ(std::bit_cast<uint32_t>(factor_a), std::bit_cast<uint32_t>(factor_b));
    EXPECT_EQ(std::bit_cast<uint32_t>(top_a), std::bit_cast<uint32_t>(top_b));
    EXPECT_EQ(std::bit_cast<uint32_t>(sum_a), std::bit_cast<uint32_t>(sum_b));
  }
}

TEST_P(KernelSet, QuantizedRowsEqualScalar) {
  Random random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> x = random_floats(96, random, round % 2 == 1);
    if (round % 5 == 0) std::fill_n(x.begin() + 32, 32, 0.0f);
    if (round % 7 == 0) x[3] = 1e-38f, x[70] = -3e38f;
    const Quantized a = quantize(set(), x, 1, 96), b = quantize(scalar(), x, 1, 96);
    EXPECT_TRUE(same_bits(a.codes, b.codes) && same_bits(a.scales, b.scales) &&
                same_bits(a.sums, b.sums))
        << round;
  }
}

TEST_P(KernelSet, AllHalvesDecodeAlike) {
  std::vector<uint16_t> halves;
  for (uint32_t i = 0; i < 65536; ++i) {
    if ((i & 0x7fffu) <= 0x7c00u) halves.push_back(static_cast<uint16_t>(i));
  }
  std::vector<float> out(halves.size());
  set().f16_to_f32(halves.data(), static_cast<int64_t>(halves.size()), out.data());
  for (size_t i = 0; i < halves.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(f16_to_float(halves[i])))
        << halves[i];
  }
}

TEST_P(KernelSet, ExponentialIsNearTheDoubleOne) {
  std::vector<float> x, y;
  for (double value = -87.0; value < 88.0; value += 0.00037) x.push_back(static_cast<float>(value));
  for (const float value : {0.0f, -0.0f, 1e-30f, -1e-30f, 88.0f}) x.push_back(value);
  y.resize(x.size());
  set().exp(x.data(), static_cast<int64_t>(x.size()), y.data());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(static_cast<double>(y[i]) - exact) / exact);
  }
  // Rounding of the last steps (1.5 units of 2^-24) and of the reduction's remainder; the series
  // itself is below 2e-9.
  EXPECT_LT(worst, 2 * 0x1p-24 + 2e-9);
  std::vector<float> reference(x.size());
  scalar().exp(x.data(), static_cast<int64_t>(x.size()), reference.data());
  EXPECT_TRUE(same_bits(y, reference));
}

TEST_P(KernelSet, ExponentialKeepsNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float out = 0;
  set().exp(&nan, 1, &out);
  EXPECT_TRUE(std::isnan(out));
}

INSTANTIATE_TEST_SUITE_P(All, KernelSet, ::testing::ValuesIn(sets_under_test()),
                         [](const auto& test) { return std::string(test.param->name); });

// In f32 mode a product with unit vectors gives back the values that the codec decodes, and so does
// decode_row; in q8 mode the product is near the exact one, as far as rounding activations allows.
TEST(PackedMatrix, HoldsWhatTheCodecDecodes) {
  Random random(6);
  for (const DType type : kBlockTypes) {
    const int64_t k = 256, rows = 17;
    const RandomMatrix source(type, rows, k, random);
    const PackedMatrix matrix(source.view, "test");
    std::vector<float> decoded(static_cast<size_t>(rows * k)), row(static_cast<size_t>(k)),
        identity(static_cast<size_t>(k * k));
    block_codec(type).decode(source.bytes.data(), rows * k, decoded.data());
    for (int64_t i = 0; i < k; ++i) identity[static_cast<size_t>(i * k + i)] = 1.0f;
    const std::vector<float> columns =
        product(available_sets().front()[0], matrix, identity, k, nullptr);
    for (int64_t r = 0; r < rows; ++r) {
      matrix.decode_row(r, row.data());
      for (int64_t i = 0; i < k; ++i) {
        const float expected = decoded[static_cast<size_t>(r * k + i)];
        ASSERT_EQ(row[static_cast<size_t>(i)], expected) << dtype_name(type);
        ASSERT_EQ(columns[static_cast<size_t>(i * rows + r)], expected) << dtype_name(type);
      }
    }
    const std::vector<float> x = random_floats(static_cast<size_t>(k), random);
    const Quantized quantized = quantize(kernels::scalar_set(), x, 1, k);
    const std::vector<float> found = product(kernels::scalar_set(), matrix, {}, 1, &quantized);
    for (int64_t r = 0; r < rows; ++r) {
      double exact = 0, squares = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double weight = decoded[static_cast<size_t>(r * k + i)];
        const double rounded = quantized.codes[static_cast<size_t>(i)] *
                               static_cast<double>(quantized.scales[static_cast<size_t>(i / 32)]);
        exact += weight * rounded;
        squares += weight * weight;
      }
      EXPECT_NEAR(found[static_cast<size_t>(r)], exact, 2e-5 * std::sqrt(squares * k) + 1e-30)
          << dtype_name(type);
    }
  }
}

// A block with a NaN or an infinity must not come out as finite numbers.
TEST(Quantize, KeepsWhatIsNotFinite) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const Set* set : available_sets()) {
      std::vector<float> x(32, 1.0f);
      x[9] = bad;
      EXPECT_FALSE(std::isfinite(quantize(*set, x, 1, 32).scales[0])) << set->name;
    }
  }
}

}  // namespace
}  // namespace slmc
