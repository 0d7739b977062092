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
/// kQ8: per 64 k a group of 64 bytes of f16 scales [2][16], then 2 blocks of 512 bytes [8][16][4]:
/// vector v holds k = 4v..4v+3 of each row. kQ4: the same scales, then 2 blocks of 256 bytes
/// [4][16][4]: byte j of vector v holds k = 8v+j low and k = 8v+4+j high, biased by 8.
enum class Kind : int32_t { kF32, kF16, kBF16, kQ8, kQ4 };

constexpr int64_t kQ8Group = 64 + 2 * 512;
constexpr int64_t kQ4Group = 64 + 2 * 256;

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

/// int8 activations: codes [tokens][k], scales and code sums [tokens][k/32].
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
  const QuantizedRows* quantized;  ///< Not null: integer arithmetic (kQ8 and kQ4 only).
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

const Set& scalar_set();
const Set& avx2_set();
const Set& avx512_set();
const Set& avx512vnni_set();
const Set& neon_set();

}  // namespace slmc::kernels
