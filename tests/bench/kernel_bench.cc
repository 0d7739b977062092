// Speed of the kernels of every instruction set, after checking their results: prefill products in
// GFLOP/s beside the processor's fma peak, and single-token products in GB/s beside the read
// ceiling, all measured in this process and interleaved. Prints JSON. Usage: slmc_kernel_bench
// [threads] [rows] [k] [tokens]
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <vector>

#include "compress/core/half.h"
#include "compress/core/json.h"
#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "compress/core/system.h"
#include "compress/runtime/isa.h"
#include "compress/runtime/packed_matrix.h"
#include "compress/runtime/throughput.h"
#include "formats/block_codec.h"

namespace slmc {
namespace {

struct Shape {
  int64_t rows, k, tokens;
};

struct Weights {
  std::vector<std::byte> bytes;
  PackedMatrix matrix;
};

Weights random_weights(DType type, const Shape& shape) {
  Weights weights;
  TensorView view{nullptr, type, {shape.rows, shape.k}, nullptr};
  weights.bytes.resize(view.bytes());
  Random random(7);
  for (std::byte& byte : weights.bytes) byte = static_cast<std::byte>(random.next());
  for (int64_t at = 0; at < static_cast<int64_t>(weights.bytes.size());
       at += dtype_block_bytes(type)) {
    const float value = static_cast<float>(random.uniform()) - 0.5f;
    const uint16_t half = type == DType::kBF16 ? float_to_bf16(value) : float_to_f16(value);
    std::byte* block = &weights.bytes[static_cast<size_t>(at)];
    if (const BlockLayout* layout = block_codec(type).layout) {
      BlockParts parts;
      layout->unpack(block, parts);
      parts.d = parts.dmin = half;
      layout->pack(parts, block);
    } else if (type == DType::kF32) {
      std::memcpy(block, &value, 4);
    } else {
      std::memcpy(block, &half, 2);
    }
  }
  view.data = weights.bytes.data();
  weights.matrix = PackedMatrix(view, "bench");
  return weights;
}

/// With one thread the processor time of this process, which other programs' work does not
/// lengthen; else the time on the wall.
double clock_seconds() {
  if (threads() > 1) return now_seconds();
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Median seconds of `body` over at least 7 repetitions of at least 30 ms each.
double seconds_of(const std::function<void()>& body) {
  body();
  std::vector<double> times;
  for (int repetition = 0; repetition < 7; ++repetition) {
    int64_t runs = 0;
    const double start = clock_seconds();
    do {
      body();
      ++runs;
    } while (clock_seconds() - start < 0.03);
    times.push_back((clock_seconds() - start) / static_cast<double>(runs));
  }
  std::nth_element(times.begin(), times.begin() + 3, times.end());
  return times[3];
}

/// Operations a second of fused multiply-adds on registers and first-level cache, all threads
/// together.
double fma_peak_per_second() {
  constexpr int64_t kDepth = 64, kTokens = 12, kRounds = 2000;
  const double seconds = seconds_of([] {
    parallel_for(threads(), [](int64_t) {
      alignas(64) float w[2 * kDepth * kernels::kLanes] = {}, x[kTokens * kDepth] = {},
                                       out[kTokens * 2 * kernels::kLanes] = {};
      for (int64_t round = 0; round < kRounds; ++round) {
        kernel_set().tile({w, kernels::kLanes, kDepth * kernels::kLanes, 2, kDepth, x, kDepth,
                           kTokens, out, 2 * kernels::kLanes, true});
      }
    });
  });
  return 2.0 * kDepth * kTokens * kRounds * 2 * kernels::kLanes * threads() / seconds;
}

Json bench_type(DType type, bool integers, const Shape& shape, double peak, double ceiling) {
  const Weights weights = random_weights(type, shape);
  std::vector<float> x(static_cast<size_t>(shape.tokens * shape.k)),
      out(static_cast<size_t>(shape.tokens * shape.rows));
  Random random(8);
  for (float& value : x) value = static_cast<float>(random.normal());
  std::vector<int8_t> codes(x.size());
  std::vector<float> scales(x.size() / 32);
  std::vector<int32_t> sums(x.size() / 16);
  for (int64_t t = 0; t < shape.tokens; ++t) {
    kernel_set().quantize_row(&x[static_cast<size_t>(t * shape.k)], shape.k,
                              &codes[static_cast<size_t>(t * shape.k)],
                              &scales[static_cast<size_t>(t * shape.k / 32)],
                              &sums[static_cast<size_t>(t * shape.k / 16)]);
  }
  const kernels::QuantizedRows quantized{codes.data(), scales.data(), sums.data()};
  ActivationRows rows{x.data(), shape.k, shape.tokens, integers ? &quantized : nullptr};
  const Product product{&weights.matrix, nullptr, out.data(), shape.rows};
  const double many = seconds_of([&] { multiply(rows, {&product, 1}); });
  rows.tokens = 1;
  const double one = seconds_of([&] { multiply(rows, {&product, 1}); });
  std::vector<float> reference(static_cast<size_t>(shape.rows)),
      fast(out.begin(), out.begin() + shape.rows);
  const kernels::Set& set = kernel_set();
  override_set(kernels::scalar_set());
  const Product slow{&weights.matrix, nullptr, reference.data(), shape.rows};
  multiply(rows, {&slow, 1});
  override_set(set);
  const double gflops = 2e-9 * static_cast<double>(shape.rows * shape.k * shape.tokens) / many;
  const double bytes = static_cast<double>(weights.matrix.bytes()) / one;
  return {{"type", dtype_name(type)},
          {"activations", integers ? "q8" : "f32"},
          {"isa", set.name},
          {"equal_to_scalar",
           std::memcmp(reference.data(), fast.data(), fast.size() * sizeof(float)) == 0},
          {"prefill_gflops", gflops},
          {"of_fma_peak", gflops * 1e9 / peak},
          {"decode_bytes_per_second", bytes},
          {"of_read_ceiling", bytes / ceiling}};
}

int bench(int argc, char** argv) {
  const auto argument = [&](int index, int64_t fallback) {
    return argc > index ? std::atoll(argv[index]) : fallback;
  };
  set_threads(static_cast<int>(argument(1, 0)));
  const Shape shape{argument(2, 4096), argument(3, 2048), argument(4, 512)};
  Json result = {{"cpu", cpu_model()},        {"compiler", compiler_version()},
                 {"version", slmc_version()}, {"threads", threads()},
                 {"rows", shape.rows},        {"k", shape.k},
                 {"tokens", shape.tokens},    {"results", Json::array()}};
  for (const kernels::Set* set : available_sets()) {
    if (set == &kernels::scalar_set()) continue;
    override_set(*set);
    const double peak = fma_peak_per_second(), ceiling = ReadCeiling(uint64_t{256} << 20).measure();
    result["fma_peak_gflops"][set->name] = peak * 1e-9;
    result["read_ceiling_bytes_per_second"] = ceiling;
    for (const DType type :
         {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K,
          DType::kQ6_K, DType::kQ5_K, DType::kQ3_K, DType::kQ2_K}) {
      result["results"].push_back(bench_type(type, false, shape, peak, ceiling));
      if (dtype_block(type) > 1)
        result["results"].push_back(bench_type(type, true, shape, peak, ceiling));
    }
  }
  std::cout << result.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace slmc

int main(int argc, char** argv) { return slmc::bench(argc, argv); }
