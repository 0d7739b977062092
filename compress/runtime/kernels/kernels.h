// The face of a kernel set: one table of functions per instruction set, all giving the same bits
// (docs/arithmetic.md). Included by files that are compiled with their own instruction-set flags,
// so only plain structs and <cstdint>, <cstddef>.
#pragma once

#include <cstddef>
#include <cstdint>

namespace slmc::kernels {

constexpr int64_t kLanes = 16;  ///< Rows of a panel; also the virtual lanes of every reduction.
constexpr int64_t kBlock = 32;  ///< Elements along k that share a scale.
constexpr int64_t kAttentionBlock =
    64;  ///< Absolute positions between two rescalings of the softmax.

/// What a packed panel holds. Panels are 16 output rows wide; along k:
/// kF32, kF16, kBF16: [k][16] elements.
/// The others are integer codes in groups of `span` k: a header, then for every 32 k a block of
/// codes. 8-bit codes: 512 bytes [8][16][4], vector v holds k = 4v..4v+3 of each row. 4-bit codes:
/// 256 bytes [4][16][4], byte j of vector v holds k = 8v+j low and k = 8v+4+j high. Headers:
/// kQ8 (8 bits), kQ4 (4 bits, biased by 8): f16 scales [2][16].
/// kSub32 (8 bits): f32 scales [16]. kSub32Min: the same and f32 minimums [16].
/// kSuper4 (4 bits): f16 d [16], f16 dmin [16], signed bytes of scales [8][16], one for 32 k, and
/// unsigned bytes of minimums [8][16]; a scale is d times its byte, a minimum dmin times its byte.
/// kSuper8 (8 bits): f16 d [16], 32 bytes unused, scales [16][16], one for 16 k.
/// kSuper8Min: f16 d [16], f16 dmin [16], scales [16][16], minimums [16][16].
enum class Kind : int32_t {
  kF32,
  kF16,
  kBF16,
  kQ8,
  kQ4,
  kSub32,
  kSub32Min,
  kSuper4,
  kSuper8,
  kSuper8Min
};

struct Packing {
  int64_t span;    ///< k that share a header; 0 for plain elements.
  int64_t sub;     ///< k that share a scale.
  int64_t header;  ///< Bytes.
  int64_t block;   ///< Bytes of codes for 32 k.
  bool minimum;
  int32_t bias;  ///< Taken off 4-bit codes.
};

// Internal linkage on purpose: see docs/arithmetic.md, "What follows for the code".
static constexpr Packing packing_of(Kind kind) {
  switch (kind) {
    case Kind::kQ8:
      return {64, 32, 64, 512, false, 0};
    case Kind::kQ4:
      return {64, 32, 64, 256, false, 8};
    case Kind::kSub32:
      return {32, 32, 64, 512, false, 0};
    case Kind::kSub32Min:
      return {32, 32, 128, 512, true, 0};
    case Kind::kSuper4:
      return {256, 32, 64 + 256, 256, true, 0};
    case Kind::kSuper8:
      return {256, 16, 64 + 256, 512, false, 0};
    case Kind::kSuper8Min:
      return {256, 16, 64 + 512, 512, true, 0};
    default:
      return {};
  }
}

static constexpr int64_t group_bytes(const Packing& packing) {
  return packing.header + packing.span / kBlock * packing.block;
}

/// out[t][16p + lane] = chain over ascending k of fma(w[p*w_panel + k*w_step + lane], x[t*x_stride
/// + k], acc); acc starts at 0, or at out.
struct Tile {
  const float* w;
  int64_t w_step, w_panel, panels, k;
  const float* x;
  int64_t x_stride, tokens;
  float* out;
  int64_t out_stride;
  bool accumulate;
};

/// int8 activations: codes [tokens][k], scales [tokens][k/32], sums of codes [tokens][k/16].
struct QuantizedRows {
  const int8_t* codes;
  const float* scales;
  const int32_t* sums;
};

/// Panels [panel_begin, panel_end) of one packed matrix times `tokens` rows; rows beyond `rows` are
/// not written.
struct Matmul {
  Kind kind;
  const std::byte* weights;  ///< Panel p starts at p * panel_bytes.
  int64_t panel_bytes, panel_begin, panel_end, rows, k;
  const float* x;  ///< f32 arithmetic: [tokens][x_stride].
  int64_t x_stride, tokens;
  const QuantizedRows* quantized;  ///< Not null: integer arithmetic (not for plain elements).
  float* out;                      ///< [tokens][out_stride], from row 0 of the matrix.
  int64_t out_stride;
  float* scratch;  ///< kScratch floats of this thread.
};
constexpr int64_t kDepth =
    512;  ///< k processed at a time when weights are decoded for several tokens.
constexpr int64_t kMaxTile = 16;  ///< Tokens of a register tile, at most.
constexpr int64_t kScratch = 2 * kLanes * kDepth + 2 * kLanes * kMaxTile;

struct Set {
  const char* name;
  void (*tile)(const Tile& job);
  void (*matmul)(const Matmul& job);
  /// out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i].
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  /// gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i].
  void (*silu_multiply)(float* gate, const float* up, int64_t n);
  /// One block of scores [64], `valid` of them real: scores become exp(score*scale - maximum);
  /// `maximum` and `sum` are brought up to date. Returns the factor for what was accumulated
  /// before.
  float (*softmax_block)(float* scores, int64_t valid, float scale, float* maximum, float* sum);
  void (*scale)(float* x, int64_t n, float factor);
  /// n % 32 == 0.
  void (*quantize_row)(const float* x, int64_t n, int8_t* codes, float* scales, int32_t* sums);
  void (*f16_to_f32)(const uint16_t* in, int64_t n, float* out);
  void (*exp)(const float* x, int64_t n, float* out);
  /// Reads `bytes` (a multiple of 64) of aligned memory and returns their exclusive or by 8 bytes:
  /// the read ceiling of benchmarks.
  uint64_t (*read_all)(const std::byte* from, int64_t bytes);
};

/// Row `lane` of a panel as floats [k].
void decode_lane(Kind kind, const std::byte* panel, int64_t lane, int64_t k, float* out);

const Set& scalar_set();
const Set& avx2_set();
const Set& avx512_set();
const Set& avx512vnni_set();
const Set& neon_set();

}  // namespace slmc::kernels
