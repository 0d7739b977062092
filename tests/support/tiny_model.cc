#include "tests/support/tiny_model.h"

#include <stdlib.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/random.h"

namespace slmc::test {
namespace {

struct Weight {
  std::string name;
  std::vector<int64_t> shape;
  std::string bytes;
};

std::string encode(float value, DType dtype) {
  if (dtype == DType::kF32) return {reinterpret_cast<const char*>(&value), 4};
  const uint16_t bits = dtype == DType::kF16 ? float_to_f16(value) : float_to_bf16(value);
  return {reinterpret_cast<const char*>(&bits), 2};
}

class Builder {
 public:
  explicit Builder(const TinyModel& options) : options_(options), random_(options.seed) {}

  /// Uniform in [middle - spread, middle + spread].
  void add(const std::string& name, std::vector<int64_t> shape, double spread,
           double middle = 0.0) {
    Weight weight{name, shape, ""};
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    for (int64_t i = 0; i < count; ++i)
      weight.bytes +=
          encode(static_cast<float>(middle + spread * (2 * random_.uniform() - 1)), options_.dtype);
    weights.push_back(std::move(weight));
  }

  void linear(const std::string& name, int64_t out, int64_t in, bool bias) {
    add(name + ".weight", {out, in}, 2.0 / std::sqrt(static_cast<double>(in)));
    if (bias) add(name + ".bias", {out}, 0.3);
  }

  std::vector<Weight> weights;

 private:
  const TinyModel& options_;
  Random random_;
};

std::vector<Weight> make_weights(const TinyModel& o, int64_t head_dim) {
  Builder builder(o);
  const bool qwen = o.family == "qwen2";
  const bool qkv_bias = qwen || o.attention_bias;
  builder.add("model.embed_tokens.weight", {o.vocab, o.hidden}, 1.0);
  for (int64_t layer = 0; layer < o.layers; ++layer) {
    const std::string at = "model.layers." + std::to_string(layer) + ".";
    builder.add(at + "input_layernorm.weight", {o.hidden}, 0.4, 1.0);
    builder.linear(at + "self_attn.q_proj", o.heads * head_dim, o.hidden, qkv_bias);
    builder.linear(at + "self_attn.k_proj", o.kv_heads * head_dim, o.hidden, qkv_bias);
    builder.linear(at + "self_attn.v_proj", o.kv_heads * head_dim, o.hidden, qkv_bias);
    builder.linear(at + "self_attn.o_proj", o.hidden, o.heads * head_dim,
                   !qwen && o.attention_bias);
    builder.add(at + "post_attention_layernorm.weight", {o.hidden}, 0.4, 1.0);
    builder.linear(at + "mlp.gate_proj", o.ffn, o.hidden, !qwen && o.mlp_bias);
    builder.linear(at + "mlp.up_proj", o.ffn, o.hidden, !qwen && o.mlp_bias);
    builder.linear(at + "mlp.down_proj", o.hidden, o.ffn, !qwen && o.mlp_bias);
  }
  builder.add("model.norm.weight", {o.hidden}, 0.4, 1.0);
  if (!o.tied) builder.add("lm_head.weight", {o.vocab, o.hidden}, 0.5);
  return std::move(builder.weights);
}

void write_safetensors(const std::string& path, const std::vector<Weight>& weights, size_t begin,
                       size_t end, const TinyModel& options) {
  const char* type = options.dtype == DType::kF32   ? "F32"
                     : options.dtype == DType::kF16 ? "F16"
                                                    : "BF16";
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (size_t i = begin; i < end; ++i) {
    const uint64_t from = data.size();
    data += weights[i].bytes;
    header[weights[i].name] = {
        {"dtype", type}, {"shape", weights[i].shape}, {"data_offsets", {from, data.size()}}};
  }
  std::string text = header.dump();
  while (text.size() % 8 != (options.unaligned ? 1 : 0)) text += ' ';
  const uint64_t length = text.size();
  spit(path, std::string(reinterpret_cast<const char*>(&length), 8) + text + data);
}

void write_shards(const std::string& folder, const std::vector<Weight>& weights,
                  const TinyModel& options) {
  const int shards = options.shards;
  Json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", Json::object()}};
  for (int shard = 0; shard < shards; ++shard) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", shard + 1, shards);
    const size_t begin = weights.size() * static_cast<size_t>(shard) / static_cast<size_t>(shards);
    const size_t end =
        weights.size() * static_cast<size_t>(shard + 1) / static_cast<size_t>(shards);
    write_safetensors(folder + "/" + name, weights, begin, end, options);
    for (size_t i = begin; i < end; ++i) index["weight_map"][weights[i].name] = name;
  }
  spit(folder + "/model.safetensors.index.json", index.dump(2));
}

Json make_config(const TinyModel& o) {
  Json config = {{"architectures", {o.family == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
                 {"model_type", o.family},
                 {"hidden_size", o.hidden},
                 {"intermediate_size", o.ffn},
                 {"num_hidden_layers", o.layers},
                 {"num_attention_heads", o.heads},
                 {"num_key_value_heads", o.kv_heads},
                 {"vocab_size", o.vocab},
                 {"max_position_embeddings", o.context},
                 {"rms_norm_eps", 1e-5},
                 {"hidden_act", "silu"},
                 {"tie_word_embeddings", o.tied},
                 {"bos_token_id", 0},
                 {"eos_token_id", 1},
                 {"initializer_range", 0.2},
                 {"torch_dtype", o.dtype == DType::kF32   ? "float32"
                                 : o.dtype == DType::kF16 ? "float16"
                                                          : "bfloat16"}};
  if (o.head_dim > 0) config["head_dim"] = o.head_dim;
  if (o.family == "llama") {
    config["attention_bias"] = o.attention_bias;
    config["mlp_bias"] = o.mlp_bias;
  }
  Json rope = Json::object();
  if (o.newer_rope_spelling) rope["rope_theta"] = o.theta;
  if (o.newer_rope_spelling || !o.rope_type.empty())
    rope["rope_type"] = o.rope_type.empty() ? "default" : o.rope_type;
  if (o.rope_type == "linear") rope["factor"] = 4.0;
  if (o.rope_type == "llama3") {
    rope["factor"] = 8.0;
    rope["low_freq_factor"] = 1.0;
    rope["high_freq_factor"] = 4.0;
    rope["original_max_position_embeddings"] = 64;
  }
  if (o.newer_rope_spelling) {
    config["rope_parameters"] = rope;
  } else {
    config["rope_theta"] = o.theta;
    config["rope_scaling"] = rope.empty() ? Json(nullptr) : rope;
  }
  return config;
}

std::string utf8(uint32_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

/// GPT-2's byte alphabet: printable bytes stand for themselves, the others for the code points from
/// 256 on.
std::vector<std::string> byte_alphabet() {
  std::vector<std::string> alphabet;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    alphabet.push_back(utf8(printable ? byte : next++));
  }
  return alphabet;
}

}  // namespace

std::string tiny_tokenizer_json() {
  static const char* kPattern =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  Json vocab = {{"<|begin|>", 0}, {"<|end|>", 1}};
  for (const std::string& letter : byte_alphabet()) vocab[letter] = vocab.size();
  const std::string space = "\xc4\xa0";  // U+0120, a space in GPT-2's alphabet.
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"h", "e"},   {space, "t"}, {space + "t", "he"}, {"i", "n"},
      {space, "a"}, {"e", "r"},   {"o", "n"},          {"l", "l"}};
  Json merges = Json::array();
  for (const auto& [left, right] : pairs) {
    vocab[left + right] = vocab.size();
    merges.push_back({left, right});
  }
  Json added = Json::array();
  for (const char* text : {"<|begin|>", "<|end|>"}) {
    added.push_back({{"id", added.size()},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", kPattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const Json bos = {{"SpecialToken", {{"id", "<|begin|>"}, {"type_id", 0}}}};
  const Json first = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  const Json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level})}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", Json::array({bos, first})},
        {"pair", Json::array({bos, first, bos, second})},
        {"special_tokens",
         {{"<|begin|>",
           {{"id", "<|begin|>"},
            {"ids", Json::array({0})},
            {"tokens", Json::array({"<|begin|>"})}}}}}}},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", vocab},
        {"merges", merges}}}};
  return tokenizer.dump(1);
}

Json write_tiny_model(const std::string& folder, const TinyModel& options) {
  std::filesystem::create_directories(folder);
  const Json config = make_config(options);
  spit(folder + "/config.json", config.dump(2));
  const std::vector<Weight> weights = make_weights(
      options, options.head_dim > 0 ? options.head_dim : options.hidden / options.heads);
  if (options.shards > 1) {
    write_shards(folder, weights, options);
  } else {
    write_safetensors(folder + "/model.safetensors", weights, 0, weights.size(), options);
  }
  if (options.tokenizer) {
    spit(folder + "/tokenizer.json", tiny_tokenizer_json());
    const Json tokenizer_config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                   {"bos_token", "<|begin|>"},
                                   {"eos_token", "<|end|>"},
                                   {"model_max_length", options.context}};
    spit(folder + "/tokenizer_config.json", tokenizer_config.dump(1));
  }
  return config;
}

std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void spit(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  if (!out.flush()) throw std::runtime_error("cannot write " + path);
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace slmc::test
