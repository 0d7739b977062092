// The decoder against itself (any instruction set, thread count and chunking gives the same bits)
// and against double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/isa.h"
#include "tests/runtime/random_weights.h"
#include "tests/runtime/reference_decoder.h"
#include "tests/support/golden.h"

namespace slmc {
namespace {

using testing::golden_prompt;
using testing::random_weights;
using testing::ReferenceDecoder;
using testing::small_architecture;

std::vector<float> logits_in_chunks(const Decoder& decoder, const std::vector<int32_t>& ids,
                                    int64_t chunk) {
  const auto total = static_cast<int64_t>(ids.size()), vocab = decoder.arch().vocab;
  std::vector<float> logits(static_cast<size_t>(total * vocab));
  const auto cache = decoder.new_cache(total);
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    decoder.forward(*cache,
                    std::span(ids).subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
                    logits.data() + first * vocab, false);
  }
  return logits;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Restore {
  const kernels::Set& set = kernel_set();
  int count = threads();
  ~Restore() {
    override_set(set);
    set_threads(count);
  }
};

struct BitsCase {
  DType type;
  Activations mode;
  KvType kv = KvType::kAuto;
};

class SameBits : public ::testing::TestWithParam<BitsCase> {};

TEST_P(SameBits, ForEverySetThreadCountAndChunk) {
  const Restore restore;
  const MemoryWeights weights = random_weights(small_architecture(), GetParam().type);
  const auto decoder = Decoder::create(weights, GetParam().mode, GetParam().kv);
  const std::vector<int32_t> ids = golden_prompt(150, decoder->arch().vocab);
  override_set(kernels::scalar_set());
  set_threads(1);
  const std::vector<float> expected = logits_in_chunks(*decoder, ids, 512);
  for (const kernels::Set* set : available_sets()) {
    override_set(*set);
    for (const int count : {1, 2, 3, 7}) {
      set_threads(count);
      for (const int64_t chunk : {1, 2, 8, 512}) {
        if (set == &kernels::scalar_set() && (chunk < 8 || count == 7))
          continue;  // Slow, and covered by its neighbours.
        EXPECT_TRUE(same_bits(logits_in_chunks(*decoder, ids, chunk), expected))
            << set->name << ", " << count << " threads, chunks of " << chunk;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SameBits,
                         ::testing::Values(BitsCase{DType::kF32, Activations::kF32},
                                           BitsCase{DType::kBF16, Activations::kF32},
                                           BitsCase{DType::kQ4_0, Activations::kF32},
                                           BitsCase{DType::kF32, Activations::kF32, KvType::kF16},
                                           BitsCase{DType::kF32, Activations::kF32, KvType::kInt8},
                                           BitsCase{DType::kQ4_0, Activations::kQ8, KvType::kInt8},
                                           BitsCase{DType::kF16, Activations::kQ8},
                                           BitsCase{DType::kQ8_0, Activations::kQ8},
                                           BitsCase{DType::kQ4_0, Activations::kQ8}),
                         [](const auto& test) {
                           return std::string(dtype_name(test.param.type)) + "_" +
                                  std::string(activations_name(test.param.mode)) + "_" +
                                  std::string(kv_type_name(test.param.kv, test.param.mode, {}));
                         });

/// The reference's tensors, decoded from those of the runtime.
ReferenceDecoder reference_of(const MemoryWeights& weights) {
  ReferenceDecoder reference{weights.arch(), {}};
  for (const TensorSpec& spec : family_by_name(weights.arch().family).tensors(weights.arch())) {
    const TensorView view = weights.view(spec.name);
    std::vector<float> values(static_cast<size_t>(view.elements()));
    block_codec(view.dtype).decode(view.data, view.elements(), values.data());
    reference.tensors[spec.name].assign(values.begin(), values.end());
  }
  return reference;
}

double largest_difference(const Decoder& decoder, const ReferenceDecoder& reference,
                          const std::vector<int32_t>& ids) {
  const std::vector<float> logits = logits_in_chunks(decoder, ids, 7);
  const auto expected = reference.logits(ids);
  double largest = 0;
  for (size_t t = 0; t < ids.size(); ++t) {
    for (size_t i = 0; i < expected[t].size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(logits[t * expected[t].size() + i]) -
                                           expected[t][i]));
    }
  }
  return largest;
}

// Widths that fill no panel: 40, 24 and 77 are no multiples of 16; three heads share a key; biases
// everywhere.
TEST(Decoder, EqualsDoublePrecisionAtRaggedWidths) {
  Architecture arch = small_architecture();
  arch.hidden = 40;
  arch.ffn = 56;
  arch.heads = 6;
  arch.kv_heads = 2;
  arch.head_dim = 24;
  arch.rope.dims = 24;
  arch.vocab = 77;
  arch.qkv_bias = arch.output_bias = arch.mlp_bias = true;
  for (const bool tied : {false, true}) {
    arch.tied = tied;
    const MemoryWeights weights = random_weights(arch, DType::kF32);
    const auto decoder = Decoder::create(weights, Activations::kF32);
    // Logits are around 10; f32 keeps 7 digits, and a few hundred roundings lie on the way.
    EXPECT_LT(largest_difference(*decoder, reference_of(weights), golden_prompt(140, arch.vocab)),
              2e-4)
        << "tied " << tied;
  }
}

TEST(Decoder, EqualsDoublePrecisionForEveryWeightType) {
  for (const DType type : {DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0}) {
    const MemoryWeights weights = random_weights(small_architecture(), type);
    const ReferenceDecoder reference = reference_of(weights);
    const std::vector<int32_t> ids = golden_prompt(90, reference.arch.vocab);
    EXPECT_LT(largest_difference(*Decoder::create(weights, Activations::kF32), reference, ids),
              2e-4)
        << dtype_name(type);
    // int8 activations and f16 keys are approximations: half a percent of logits around 10,
    // amplified by two layers.
    EXPECT_LT(largest_difference(*Decoder::create(weights, Activations::kQ8), reference, ids), 1.0)
        << dtype_name(type);
  }
}

// What the page on arithmetic says of int8 keys and values, applied in double precision to the
// reference's keys and values: the decoder must be as near to that as it is to the exact model.
TEST(Decoder, Int8KeysAndValuesAreRoundedAsDocumented) {
  const MemoryWeights weights = random_weights(small_architecture(), DType::kF32);
  ReferenceDecoder reference = reference_of(weights);
  const std::vector<int32_t> ids = golden_prompt(90, reference.arch.vocab);
  const auto decoder = Decoder::create(weights, Activations::kF32, KvType::kInt8);
  const double exact = largest_difference(*decoder, reference, ids);
  reference.int8_cache = true;
  const double rounded = largest_difference(*decoder, reference, ids);
  EXPECT_GT(exact, 1e-3);
  // A value that lies on the edge between two codes may fall to the other side: then one code of
  // some thousand differs by a step.
  EXPECT_LT(rounded, 0.2 * exact);
  const auto size = [&](KvType type) {
    return Decoder::create(weights, Activations::kF32, type)->new_cache(256)->bytes();
  };
  EXPECT_EQ(size(KvType::kF16), size(KvType::kF32) / 2);
  EXPECT_LT(size(KvType::kInt8), 0.35 * static_cast<double>(size(KvType::kF32)));
}

// The same with the scales that a checkpoint fixes, which need not reach all values.
TEST(Decoder, FixedScalesOfKeysAndValuesAreUsedAsDocumented) {
  Architecture arch = small_architecture();
  const MemoryWeights weights = random_weights(arch, DType::kF32);
  ReferenceDecoder reference = reference_of(weights);
  for (int64_t i = 0; i < 2 * arch.layers; ++i)
    arch.kv_scales.push_back(0.01f + 0.002f * static_cast<float>(i));
  MemoryWeights fixed(arch);
  for (const TensorSpec& spec : family_by_name("llama").tensors(arch))
    fixed.add(spec.name, weights.view(spec.name));
  const std::vector<int32_t> ids = golden_prompt(90, arch.vocab);
  const auto decoder = Decoder::create(fixed, Activations::kF32);
  const double exact = largest_difference(*decoder, reference, ids);
  reference.int8_cache = true;
  reference.arch.kv_scales = arch.kv_scales;
  EXPECT_GT(exact, 1e-3);
  EXPECT_LT(largest_difference(*decoder, reference, ids), 0.2 * exact);
  EXPECT_LT(largest_difference(*Decoder::create(fixed, Activations::kF32, KvType::kF32),
                               reference_of(weights), ids),
            2e-4)
      << "asked for, the cache is not rounded";
}

TEST(Decoder, NotFiniteKeysStayVisibleInInt8) {
  for (const bool fixed : {false, true}) {
    Architecture arch = small_architecture();
    if (fixed) arch.kv_scales.assign(static_cast<size_t>(2 * arch.layers), 0.05f);
    MemoryWeights weights = random_weights(arch, DType::kF32);
    for (const char* name : {"blk.0.attn_k.weight", "blk.0.attn_v.weight"}) {
      MemoryWeights broken(weights.arch());
      for (const TensorSpec& spec : family_by_name("llama").tensors(weights.arch())) {
        TensorView part = weights.view(spec.name);
        const auto bytes =
            std::make_shared<std::vector<std::byte>>(part.data, part.data + part.bytes());
        const float nan = std::numeric_limits<float>::quiet_NaN();
        if (spec.name == name) std::memcpy(bytes->data(), &nan, sizeof nan);
        part.data = bytes->data(), part.owner = bytes;
        broken.add(spec.name, part);
      }
      const auto decoder = Decoder::create(broken, Activations::kF32, KvType::kInt8);
      EXPECT_TRUE(std::isnan(logits_in_chunks(*decoder, {1, 2, 3}, 3)[0])) << name;
    }
  }
}

TEST(Decoder, LastOnlyAndHiddenAgreeWithAllLogits) {
  const MemoryWeights weights = random_weights(small_architecture(), DType::kF32);
  const auto decoder = Decoder::create(weights, Activations::kF32);
  const int64_t vocab = decoder->arch().vocab;
  const std::vector<int32_t> ids = golden_prompt(600, vocab);  // More than one internal chunk.
  const std::vector<float> all = logits_in_chunks(*decoder, ids, 600);
  std::vector<float> last(static_cast<size_t>(vocab));
  auto cache = decoder->new_cache(600);
  decoder->forward(*cache, ids, last.data(), true);
  EXPECT_TRUE(same_bits(last, std::vector<float>(all.end() - vocab, all.end())));
  EXPECT_EQ(cache->length(), 600);

  cache->truncate(100);  // Going back and on gives the same again.
  decoder->forward(*cache, std::span(ids).subspan(100), last.data(), true);
  EXPECT_TRUE(same_bits(last, std::vector<float>(all.end() - vocab, all.end())));

  cache = decoder->new_cache(600);
  std::vector<float> hidden(600 * 64);
  decoder->hidden(*cache, ids, hidden.data());
  const TensorView head = weights.view("output.weight");
  double logit = 0;
  for (int64_t i = 0; i < 64; ++i)
    logit += static_cast<double>(reinterpret_cast<const float*>(head.data)[i]) *
             hidden[599 * 64 + static_cast<size_t>(i)];
  EXPECT_NEAR(logit, all[static_cast<size_t>(599 * vocab)], 1e-4);
}

TEST(Decoder, RefusesWhatDoesNotFit) {
  const MemoryWeights weights = random_weights(small_architecture(), DType::kF32);
  const auto decoder = Decoder::create(weights, Activations::kF32);
  const auto cache = decoder->new_cache(4);
  const auto code_of = [&](std::vector<int32_t> ids) {
    try {
      decoder->forward(*cache, ids, nullptr, false);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::kOk;
  };
  EXPECT_EQ(code_of({1, 2, 3, 4, 5}), ExitCode::kUsage);
  EXPECT_EQ(code_of({1, 101}), ExitCode::kBadInput);
  EXPECT_EQ(code_of({-1}), ExitCode::kBadInput);
  EXPECT_EQ(cache->length(), 0);
  EXPECT_EQ(code_of({1, 2, 3, 100}), ExitCode::kOk);
  EXPECT_THROW(force_isa("sse9"), Error);
}

// A broken weight must show in the logits, in either mode.
TEST(Decoder, NanInAWeightReachesTheLogits) {
  for (const Activations mode : {Activations::kF32, Activations::kQ8}) {
    MemoryWeights weights = random_weights(small_architecture(), DType::kQ8_0);
    const TensorView view = weights.view("blk.0.ffn_down.weight");
    const auto bytes =
        std::make_shared<std::vector<std::byte>>(view.data, view.data + view.bytes());
    const uint16_t nan = 0x7e00;
    std::memcpy(bytes->data(), &nan, 2);
    MemoryWeights broken(weights.arch());
    for (const TensorSpec& spec : family_by_name("llama").tensors(weights.arch())) {
      TensorView part = weights.view(spec.name);
      if (spec.name == "blk.0.ffn_down.weight") part.data = bytes->data(), part.owner = bytes;
      broken.add(spec.name, part);
    }
    const auto logits = logits_in_chunks(*Decoder::create(broken, mode), {1, 2, 3}, 3);
    EXPECT_TRUE(std::isnan(logits[0])) << activations_name(mode);
  }
}

}  // namespace
}  // namespace slmc
