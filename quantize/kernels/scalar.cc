// The reference for the other instruction sets: what they must equal to the bit.
#include <cmath>
#include <cstring>

#include "compress/core/half.h"
#include "quantize/kernels/kernels.h"

namespace slmc {
namespace {

constexpr int kLanes = 8;

void widen_bf16(const std::byte* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits;
    std::memcpy(&bits, in + 2 * i, 2);
    out[i] = bf16_to_float(bits);
  }
}

bool all_finite(const float* in, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(in[i])) return false;
  }
  return true;
}

void encode_by_reference(const float* in, int64_t n, std::byte* out, EncodeReference reference) {
  reference(in, n, out);
}

float sum_lanes(const float* lane) {
  const float even = (lane[0] + lane[4]) + (lane[2] + lane[6]);
  const float odd = (lane[1] + lane[5]) + (lane[3] + lane[7]);
  return even + odd;
}

/// One span of at most kDistortionSpan elements.
void add_span(const float* exact, const float* decoded, int64_t n, Distortion* sum) {
  float error[kLanes] = {}, weight[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    const float difference = exact[i] - decoded[i];
    error[i % kLanes] += difference * difference;
    weight[i % kLanes] += exact[i] * exact[i];
    if (std::fabs(difference) > sum->max_error) sum->max_error = std::fabs(difference);
  }
  sum->squared_error += static_cast<double>(sum_lanes(error));
  sum->squared_weight += static_cast<double>(sum_lanes(weight));
}

void distortion_f32(const float* exact, const float* decoded, int64_t n, Distortion* sum) {
  for (int64_t i = 0; i < n; i += kDistortionSpan) {
    add_span(exact + i, decoded + i, n - i < kDistortionSpan ? n - i : kDistortionSpan, sum);
  }
}

float block_scale(const std::byte* block) {
  uint16_t bits;
  std::memcpy(&bits, block, 2);
  return f16_to_float(bits);
}

void distortion_q8_0(const float* exact, const std::byte* blocks, int64_t n, Distortion* sum) {
  float decoded[kDistortionSpan];
  for (int64_t begin = 0; begin < n; begin += kDistortionSpan) {
    const int64_t count = n - begin < kDistortionSpan ? n - begin : kDistortionSpan;
    for (int64_t i = 0; i < count; ++i) {
      const std::byte* block = blocks + (begin + i) / 32 * 34;
      decoded[i] =
          block_scale(block) * static_cast<float>(static_cast<int8_t>(block[2 + (begin + i) % 32]));
    }
    add_span(exact + begin, decoded, count, sum);
  }
}

void distortion_q4_0(const float* exact, const std::byte* blocks, int64_t n, Distortion* sum) {
  float decoded[kDistortionSpan];
  for (int64_t begin = 0; begin < n; begin += kDistortionSpan) {
    const int64_t count = n - begin < kDistortionSpan ? n - begin : kDistortionSpan;
    for (int64_t i = 0; i < count; ++i) {
      const std::byte* block = blocks + (begin + i) / 32 * 18;
      const int64_t j = (begin + i) % 32;
      const int pair = static_cast<int>(block[2 + j % 16]);
      decoded[i] = block_scale(block) * static_cast<float>((j < 16 ? pair & 15 : pair >> 4) - 8);
    }
    add_span(exact + begin, decoded, count, sum);
  }
}

}  // namespace

const EncodeKernels kScalarEncodeKernels = {
    widen_bf16,      all_finite,      encode_by_reference, encode_by_reference,
    distortion_q8_0, distortion_q4_0, distortion_f32,      search_blocks};

}  // namespace slmc
