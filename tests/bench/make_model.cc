// slmc-make-model: a checkpoint of random weights at real size, for measuring time and memory.
// Streams row by row, so that a model larger than the memory can be made; the same seed gives the
// same bytes on any number of threads.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/json.h"
#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "compress/core/text.h"
#include "formats/family.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string output, family = "llama", tokenizer;
  int64_t layers = 16, hidden = 2048, ffn = 8192, heads = 32, kv_heads = 8, head_dim = 64,
          vocab = 128256, context = 131072;
  bool untied = false;
  int shards = 1;
  uint64_t seed = 1;
  double spread = 0.02;
};

Json config_of(const Options& o) {
  return {{"architectures", {o.family == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
          {"model_type", o.family},
          {"hidden_act", "silu"},
          {"hidden_size", o.hidden},
          {"intermediate_size", o.ffn},
          {"num_hidden_layers", o.layers},
          {"num_attention_heads", o.heads},
          {"num_key_value_heads", o.kv_heads},
          {"head_dim", o.head_dim},
          {"vocab_size", o.vocab},
          {"max_position_embeddings", o.context},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"tie_word_embeddings", !o.untied},
          {"torch_dtype", "bfloat16"},
          {"bos_token_id", 0},
          {"eos_token_id", 1}};
}

/// Near-normal: the sum of a draw's four 16-bit parts, variance 1 after scaling.
uint16_t random_weight(Random& random, float scale) {
  const uint64_t draw = random.next();
  const auto sum = static_cast<int64_t>((draw & 0xffff) + ((draw >> 16) & 0xffff) +
                                        ((draw >> 32) & 0xffff) + (draw >> 48));
  return float_to_bf16(static_cast<float>(sum - 131070) * scale);
}

/// Rows are seeded by tensor and number, so threads may share them.
void write_tensor(const TensorSpec& spec, size_t index, const Options& options,
                  std::ofstream& file) {
  const int64_t columns = spec.shape.back(), rows = element_count(spec.shape) / columns;
  const bool norm = spec.name.ends_with("norm.weight");
  const float scale = static_cast<float>(
      options.spread / 37836.9);  // Standard deviation of the sum: 65536 * sqrt(4 / 12).
  const int64_t step = std::max<int64_t>(1, (int64_t{4} << 20) / columns);
  std::vector<uint16_t> piece(static_cast<size_t>(std::min(step, rows) * columns));
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    parallel_for(count, [&](int64_t r) {
      Random random(options.seed * 0x9e3779b97f4a7c15ull + index * 0x100000001b3ull +
                    static_cast<uint64_t>(first + r));
      uint16_t* row = piece.data() + r * columns;
      for (int64_t i = 0; i < columns; ++i)
        row[i] = norm ? float_to_bf16(1.0f) : random_weight(random, scale);
    });
    file.write(reinterpret_cast<const char*>(piece.data()),
               static_cast<std::streamsize>(count * columns * 2));
  }
}

void write_shard(const std::string& path, const std::vector<TensorSpec>& specs, size_t begin,
                 size_t end, const Options& options) {
  Json header = Json::object();
  uint64_t offset = 0;
  for (size_t i = begin; i < end; ++i) {
    const uint64_t bytes = 2 * static_cast<uint64_t>(element_count(specs[i].shape));
    header[specs[i].hf_name] = {
        {"dtype", "BF16"}, {"shape", specs[i].shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t size = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), 8);
  file.write(text.data(), static_cast<std::streamsize>(size));
  for (size_t i = begin; i < end; ++i) write_tensor(specs[i], i, options, file);
  if (!file.flush()) throw_resources(path + ": cannot write");
}

void make_model(const Options& options) {
  const Json config = config_of(options);
  const Family& family = family_by_name(options.family);
  const std::vector<TensorSpec> specs = family.tensors(family.from_config(config, "config"));
  fs::create_directories(options.output);
  std::ofstream(options.output + "/config.json") << config.dump(2) << "\n";
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    const fs::path from = fs::path(options.tokenizer) / name;
    if (!options.tokenizer.empty() && fs::exists(from))
      fs::copy_file(from, fs::path(options.output) / name, fs::copy_options::overwrite_existing);
  }
  uint64_t total = 0, written = 0;
  for (const TensorSpec& spec : specs)
    total += 2 * static_cast<uint64_t>(element_count(spec.shape));
  Json weight_map = Json::object();
  size_t begin = 0;
  for (int shard = 0; shard < options.shards; ++shard) {
    size_t end = begin;
    while (end < specs.size() &&
           (shard + 1 == options.shards || written < total / static_cast<uint64_t>(options.shards) *
                                                         static_cast<uint64_t>(shard + 1))) {
      written += 2 * static_cast<uint64_t>(element_count(specs[end++].shape));
    }
    char name[64];
    std::snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", shard + 1, options.shards);
    const std::string file = options.shards == 1 ? "model.safetensors" : name;
    write_shard(options.output + "/" + file, specs, begin, end, options);
    for (size_t i = begin; i < end; ++i) weight_map[specs[i].hf_name] = file;
    begin = end;
  }
  if (options.shards > 1) {
    std::ofstream(options.output + "/model.safetensors.index.json")
        << Json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2) << "\n";
  }
  std::cout << options.output << ": " << human_count(total / 2) << " parameters, "
            << human_bytes(total) << "\n";
}

}  // namespace
}  // namespace slmc

int main(int argc, char** argv) {
  slmc::Options o;
  CLI::App app{"Writes a random bf16 checkpoint; the default shape has 1.24B parameters, tied"};
  app.add_option("-o,--output", o.output, "Folder to write")->required();
  app.add_option("--family", o.family, "llama or qwen2");
  app.add_option("--layers", o.layers, "");
  app.add_option("--hidden", o.hidden, "");
  app.add_option("--ffn", o.ffn, "");
  app.add_option("--heads", o.heads, "");
  app.add_option("--kv-heads", o.kv_heads, "");
  app.add_option("--head-dim", o.head_dim, "");
  app.add_option("--vocab", o.vocab, "");
  app.add_option("--context", o.context, "");
  app.add_flag("--untied", o.untied, "A head of its own");
  app.add_option("--shards", o.shards, "")->check(CLI::Range(1, 1000));
  app.add_option("--seed", o.seed, "");
  app.add_option("--spread", o.spread, "Standard deviation of the weights");
  app.add_option("--tokenizer", o.tokenizer, "Folder whose tokenizer files are copied");
  CLI11_PARSE(app, argc, argv);
  try {
    slmc::make_model(o);
  } catch (const slmc::Error& error) {
    std::cerr << "slmc-make-model: " << error.what() << "\n";
    return static_cast<int>(error.code());
  }
  return 0;
}
