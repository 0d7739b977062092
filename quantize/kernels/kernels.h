// The inner loops of quantization that are worth a copy per instruction set: widening, encoding by
// the codecs' own rounding, and measuring what was lost. All sets give the same bits; the scalar
// file is the reference. This header is included by files with their own instruction-set flags, so
// it holds plain structs only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/block_search.h"

namespace slmc {

#if defined(__x86_64__)
void search_blocks_avx2(const BlockSearch& search);    ///< AVX2.
void search_blocks_avx512(const BlockSearch& search);  ///< AVX-512 F, BW, DQ, VL.
#endif

/// What encoding lost, summed over elements. The sums run in f32 over spans of kDistortionSpan
/// elements from the start of a row (8 lanes, then the lanes pairwise), and in double over spans,
/// so they are the same for every instruction set and chunk of rows.
struct Distortion {
  double squared_error;
  double squared_weight;
  float max_error;
};

constexpr int64_t kDistortionSpan = 256;

using EncodeReference = void (*)(const float* in, int64_t n, std::byte* out);

struct EncodeKernels {
  /// n bf16 values, any alignment, to floats.
  void (*widen_bf16)(const std::byte* in, int64_t n, float* out);
  /// True if no value is NaN or infinite.
  bool (*all_finite)(const float* in, int64_t n);
  /// One row of n floats, n % 32 == 0, to blocks: the bytes that `reference` (the codec's encode)
  /// gives, which also takes the blocks whose scale is too small for the fast path.
  void (*encode_q8_0)(const float* in, int64_t n, std::byte* out, EncodeReference reference);
  void (*encode_q4_0)(const float* in, int64_t n, std::byte* out, EncodeReference reference);
  /// Adds the distortion of one row of n elements: `exact` against the decoded blocks or floats.
  void (*distortion_q8_0)(const float* exact, const std::byte* blocks, int64_t n, Distortion* sum);
  void (*distortion_q4_0)(const float* exact, const std::byte* blocks, int64_t n, Distortion* sum);
  void (*distortion_f32)(const float* exact, const float* decoded, int64_t n, Distortion* sum);
  void (*search)(const BlockSearch& search);
};

extern const EncodeKernels kScalarEncodeKernels;
#if defined(__x86_64__)
extern const EncodeKernels kAvx2EncodeKernels;    ///< AVX2, F16C.
extern const EncodeKernels kAvx512EncodeKernels;  ///< The same with the search of AVX-512.
#endif

}  // namespace slmc
