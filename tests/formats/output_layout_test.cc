#include "formats/output_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "compress/core/json.h"
#include "formats/family.h"

namespace slmc {
namespace {

OutputSpec small_spec() {
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"hidden_size", 64},
                       {"intermediate_size", 96},
                       {"num_hidden_layers", 3},
                       {"num_attention_heads", 4},
                       {"vocab_size", 100}};
  OutputSpec spec;
  spec.path = "out";
  spec.arch = family_by_name("llama").from_config(config, "config.json");
  spec.config = config;
  for (const TensorSpec& tensor : family_by_name("llama").tensors(spec.arch)) {
    spec.tensors.push_back(
        {tensor.name, tensor.shape.size() == 1 ? DType::kF32 : DType::kBF16, tensor.shape});
  }
  return spec;
}

TEST(OutputLayout, ShardsHoldAtMostTheirBytesAndTheIndexNamesEach) {
  const OutputSpec spec = small_spec();
  constexpr uint64_t kLimit = 40'000;
  OutputLayout layout = output_layout(spec);
  layout.files.clear();
  layout.texts.clear();
  safetensors_layout(spec, family_by_name("llama"), {}, layout, kLimit);
  ASSERT_GT(layout.files.size(), 3u);
  EXPECT_EQ(layout.files[0].name,
            "model-00001-of-0000" + std::to_string(layout.files.size()) + ".safetensors");
  const auto text = std::find_if(layout.texts.begin(), layout.texts.end(), [](const auto& item) {
    return item.first == "model.safetensors.index.json";
  });
  ASSERT_NE(text, layout.texts.end());
  const Json index = parse_json(text->second, "index");
  uint64_t total = 0, mapped = 0;
  for (size_t i = 0; i < layout.files.size(); ++i) {
    // Each shard's header names exactly the tensors that the index puts there, and covers its data.
    const OutputFile& file = layout.files[i];
    uint64_t length;
    std::memcpy(&length, file.header.data(), 8);
    const Json header = parse_json(std::string_view(file.header).substr(8, length), file.name);
    uint64_t bytes = 0;
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      EXPECT_EQ(index["weight_map"][name], file.name);
      bytes += entry["data_offsets"][1].get<uint64_t>() - entry["data_offsets"][0].get<uint64_t>();
      ++mapped;
    }
    EXPECT_LE(bytes, kLimit);
    EXPECT_EQ(file.size, file.header.size() + bytes);
    total += bytes;
  }
  EXPECT_EQ(mapped, layout.slots.size());
  EXPECT_EQ(index["weight_map"].size(), layout.slots.size());
  EXPECT_EQ(index["metadata"]["total_size"], total);
}

TEST(OutputLayout, TensorsLieAlignedAndApart) {
  OutputSpec spec = small_spec();
  for (const char* path : {"out", "out.gguf"}) {
    spec.path = path;
    OutputLayout layout = output_layout(spec);
    const uint64_t alignment = layout.folder ? 2 : 32;
    std::sort(layout.stored.begin(), layout.stored.end(),
              [](const StoredTensor& a, const StoredTensor& b) { return a.offset < b.offset; });
    uint64_t end = layout.files[0].header.size();
    for (const StoredTensor& slot : layout.stored) {
      EXPECT_GE(slot.offset, end);
      EXPECT_EQ(
          slot.offset % (slot.dtype == DType::kF32 ? std::max<uint64_t>(alignment, 4) : alignment),
          0u)
          << slot.name;
      end = slot.offset + slot.bytes;
    }
    EXPECT_LE(end, layout.files[0].size);
    EXPECT_LT(layout.files[0].size - end, 32u);
  }
}

TEST(OutputLayout, TheHeaderKeepsItsSizeWhenHashesAreKnown) {
  OutputSpec spec = small_spec();
  for (const char* path : {"out", "out.gguf"}) {
    spec.path = path;
    const std::vector<std::string> hashes(spec.tensors.size(), "0123456789abcdef0123456789abcdef");
    EXPECT_EQ(output_layout(spec).files[0].header.size(),
              output_layout(spec, hashes).files[0].header.size());
  }
}

}  // namespace
}  // namespace slmc
