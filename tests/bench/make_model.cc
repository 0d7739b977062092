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
  std::string output, preset, config, family = "llama", tokenizer;
  int64_t layers = 16, hidden = 2048, ffn = 8192, heads = 32, kv_heads = 8, head_dim = 64,
          vocab = 128256, context = 131072;
  bool untied = false;
  int shards = 1;
  uint64_t seed = 1;
  double spread = 0.02;
};

/// Phi-3.5-mini's configuration, with factors of longrope made up.
Json phi35_mini() {
  std::vector<double> shorter, longer;
  for (int i = 0; i < 48; ++i) {
    shorter.push_back(1.0 + 0.02 * i);
    longer.push_back(1.0 + 1.3 * i);
  }
  return {
      {"architectures", {"Phi3ForCausalLM"}},
      {"model_type", "phi3"},
      {"hidden_size", 3072},
      {"intermediate_size", 8192},
      {"num_hidden_layers", 32},
      {"num_attention_heads", 32},
      {"num_key_value_heads", 32},
      {"vocab_size", 32064},
      {"max_position_embeddings", 131072},
      {"original_max_position_embeddings", 4096},
      {"rms_norm_eps", 1e-5},
      {"rope_theta", 10000.0},
      {"rope_scaling", {{"type", "longrope"}, {"short_factor", shorter}, {"long_factor", longer}}},
      {"sliding_window", 262144},
      {"tie_word_embeddings", false},
      {"torch_dtype", "bfloat16"},
      {"bos_token_id", 1},
      {"eos_token_id", 32000},
      {"pad_token_id", 32000}};
}

Json mistral_7b() {
  return {{"architectures", {"MistralForCausalLM"}},
          {"model_type", "mistral"},
          {"hidden_size", 4096},
          {"intermediate_size", 14336},
          {"num_hidden_layers", 32},
          {"num_attention_heads", 32},
          {"num_key_value_heads", 8},
          {"vocab_size", 32768},
          {"max_position_embeddings", 32768},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 1000000.0},
          {"sliding_window", nullptr},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}

Json config_of(const Options& o) {
  if (!o.config.empty()) return read_json(o.config);
  if (o.preset == "phi-3.5-mini") return phi35_mini();
  if (o.preset == "mistral-7b") return mistral_7b();
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

/// A tensor as the folder will have it: fused where the family fuses.
struct Stored {
  std::string name;
  std::vector<int64_t> shape;
  bool norm = false;
  uint64_t bytes() const { return 2 * static_cast<uint64_t>(element_count(shape)); }
};

std::vector<Stored> stored_tensors(const Json& config) {
  const Family& family = family_for_config(config, "config");
  std::vector<Stored> stored;
  for (const TensorSpec& spec : family.tensors(family.from_config(config, "config"))) {
    if (spec.hf.first_row == 0)
      stored.push_back(
          {spec.hf.name, stored_shape(spec, spec.hf), spec.name.ends_with("norm.weight")});
  }
  return stored;
}

/// Rows are seeded by tensor and number, so threads may share them.
void write_tensor(const Stored& tensor, size_t index, const Options& options, std::ofstream& file) {
  const int64_t columns = tensor.shape.back(), rows = element_count(tensor.shape) / columns;
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
        row[i] = tensor.norm ? float_to_bf16(1.0f) : random_weight(random, scale);
    });
    file.write(reinterpret_cast<const char*>(piece.data()),
               static_cast<std::streamsize>(count * columns * 2));
  }
}

void write_shard(const std::string& path, const std::vector<Stored>& tensors, size_t begin,
                 size_t end, const Options& options) {
  Json header = Json::object();
  uint64_t offset = 0;
  for (size_t i = begin; i < end; ++i) {
    header[tensors[i].name] = {{"dtype", "BF16"},
                               {"shape", tensors[i].shape},
                               {"data_offsets", {offset, offset + tensors[i].bytes()}}};
    offset += tensors[i].bytes();
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t size = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), 8);
  file.write(text.data(), static_cast<std::streamsize>(size));
  for (size_t i = begin; i < end; ++i) write_tensor(tensors[i], i, options, file);
  if (!file.flush()) throw_resources(path + ": cannot write");
}

void make_model(const Options& options) {
  const Json config = config_of(options);
  const std::vector<Stored> tensors = stored_tensors(config);
  fs::create_directories(options.output);
  std::ofstream(options.output + "/config.json") << config.dump(2) << "\n";
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    const fs::path from = fs::path(options.tokenizer) / name;
    if (!options.tokenizer.empty() && fs::exists(from))
      fs::copy_file(from, fs::path(options.output) / name, fs::copy_options::overwrite_existing);
  }
  uint64_t total = 0, written = 0;
  for (const Stored& tensor : tensors) total += tensor.bytes();
  Json weight_map = Json::object();
  size_t begin = 0;
  for (int shard = 0; shard < options.shards; ++shard) {
    size_t end = begin;
    while (end < tensors.size() &&
           (shard + 1 == options.shards || written < total / static_cast<uint64_t>(options.shards) *
                                                         static_cast<uint64_t>(shard + 1))) {
      written += tensors[end++].bytes();
    }
    char name[64];
    std::snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", shard + 1, options.shards);
    const std::string file = options.shards == 1 ? "model.safetensors" : name;
    write_shard(options.output + "/" + file, tensors, begin, end, options);
    for (size_t i = begin; i < end; ++i) weight_map[tensors[i].name] = file;
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
  app.add_option("--preset", o.preset, "A published model's shape, in place of the options below")
      ->check(CLI::IsMember({"phi-3.5-mini", "mistral-7b"}));
  app.add_option("--config", o.config, "config.json of any family, in place of the options below");
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
