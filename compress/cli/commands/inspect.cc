// `slmc inspect`: what a checkpoint is, from headers alone; answers at once whatever the model's
// size.
#include <algorithm>
#include <filesystem>
#include <map>
#include <ostream>

#include "compress/core/command.h"
#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "formats/gguf.h"
#include "formats/model.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

/// tokenizer.json's model type ("BPE") without parsing megabytes of vocabulary.
std::string tokenizer_type(const std::string& path) {
  if (!std::filesystem::exists(path)) return "";
  const auto file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file->data()), file->size());
  // "model" may be a word of the vocabulary too; the key is the one with an object behind it.
  size_t model = text.find("\"model\"");
  for (; model != std::string_view::npos; model = text.find("\"model\"", model + 1)) {
    const size_t colon = text.find_first_not_of(" \t\r\n", model + 7);
    const size_t brace =
        colon == std::string_view::npos ? colon : text.find_first_not_of(" \t\r\n", colon + 1);
    if (brace != std::string_view::npos && text[colon] == ':' && text[brace] == '{') break;
  }
  const size_t type = model == std::string_view::npos ? model : text.find("\"type\"", model);
  const size_t open = type == std::string_view::npos ? type : text.find('"', type + 6);
  const size_t close = open == std::string_view::npos ? open : text.find('"', open + 1);
  if (close == std::string_view::npos || close - open > 20) return "tokenizer.json";
  return std::string(text.substr(open + 1, close - open - 1));
}

Json tokenizer_facts(const Model& model) {
  if (const GgufKeys* keys = model.gguf_keys()) {
    if (!keys->has("tokenizer.ggml.model")) return {{"type", nullptr}, {"chat_template", false}};
    Json facts = {{"type", keys->string_or("tokenizer.ggml.model", "", model.path())},
                  {"pre", keys->string_or("tokenizer.ggml.pre", "", model.path())}};
    facts["chat_template"] = keys->has("tokenizer.chat_template");
    return facts;
  }
  const std::string type = tokenizer_type(model.path() + "/tokenizer.json");
  const std::string config = model.path() + "/tokenizer_config.json";
  const bool in_config = std::filesystem::exists(config) &&
                         read_text(config).find("\"chat_template\"") != std::string::npos;
  return {{"type", type.empty() ? Json(nullptr) : Json(type)},
          {"chat_template",
           in_config || std::filesystem::exists(model.path() + "/chat_template.jinja")}};
}

Json rope_facts(const Rope& rope) {
  if (rope.dims == 0) return nullptr;
  Json facts = {
      {"theta", rope.theta}, {"dims", rope.dims}, {"scaling", rope_scaling_name(rope.scaling)}};
  const RopeScaling scaling = rope.scaling;
  if (scaling == RopeScaling::kLinear || scaling == RopeScaling::kLlama3 ||
      scaling == RopeScaling::kYarn)
    facts["factor"] = rope.factor;
  if (scaling == RopeScaling::kLlama3) {
    facts["low_freq_factor"] = rope.low_freq_factor;
    facts["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.original_context > 0) facts["original_context"] = rope.original_context;
  if (rope.attention_factor != 1.0) facts["attention_factor"] = rope.attention_factor;
  return facts;
}

/// What is unlike Llama, by name; absent where it is alike.
Json particulars(const Architecture& arch) {
  Json facts = {{"activation", activation_name(arch.activation)},
                {"norm", arch.norm == NormKind::kRms ? "rms" : "layer"}};
  const auto flag = [&facts](const char* name, bool value) {
    if (value) facts[name] = true;
  };
  const auto number = [&facts](const char* name, double value) {
    if (value > 0) facts[name] = value;
  };
  flag("norm_plus_one", arch.norm_offset != 0);
  flag("query_key_norms", arch.qk_norm);
  flag("branch_norms", arch.branch_norms);
  flag("ungated_ffn", !arch.gated);
  flag("learned_positions", arch.learned_positions);
  if (arch.embedding_scale != 1.0) facts["embedding_scale"] = arch.embedding_scale;
  number("attention_scale", arch.attention_scale);
  number("attention_cap", arch.attention_cap);
  number("final_cap", arch.final_cap);
  if (arch.window > 0) {
    int64_t windowed = 0;
    for (int64_t layer = 0; layer < arch.layers; ++layer) windowed += layer_window(arch, layer) > 0;
    facts["window"] = arch.window;
    facts["windowed_layers"] = windowed;
    if (arch.local_rope) facts["window_rope"] = rope_facts(*arch.local_rope);
  }
  if (arch.encoder) {
    facts["head"] = arch.head == Head::kMasked       ? "masked tokens"
                    : arch.head == Head::kClassifier ? "classes"
                                                     : "embedding";
    if (arch.head == Head::kClassifier) facts["classes"] = arch.classes;
    if (arch.head == Head::kStates)
      facts["pooling"] = arch.pooling == Pooling::kFirst ? "first token" : "mean";
  }
  return facts;
}

/// What often goes wrong with a model like this.
std::vector<std::string> warnings_of(const Model& model, const Json& facts) {
  const Architecture& arch = model.arch();
  std::vector<std::string> warnings;
  if (facts["tokenizer"]["type"].is_null()) {
    warnings.push_back("no tokenizer: only commands that take token ids can use this model");
    return warnings;
  }
  try {
    const Tokenizer& tokenizer = model.tokenizer();
    const int64_t known = tokenizer.vocab_size();
    if (known < arch.vocab) {
      warnings.push_back(
          cat("padded vocabulary: ", arch.vocab, " rows, of which the tokenizer has ", known));
    }
    if (known > arch.vocab) {
      warnings.push_back(
          cat("the tokenizer has ", known, " tokens, the embedding only ", arch.vocab, " rows"));
    }
    if (!arch.encoder && arch.eos < 0 && tokenizer.eos() < 0)
      warnings.push_back("no end-of-sequence token: generation ends at its limit alone");
  } catch (const Error& error) {
    warnings.push_back(cat("the tokenizer cannot be used: ", error.what()));
  }
  if (!arch.encoder && !facts["tokenizer"]["chat_template"].get<bool>())
    warnings.push_back("no chat template: a base model, or chat needs the template named");
  return warnings;
}

Json model_facts(const Model& model) {
  const Architecture& arch = model.arch();
  std::map<std::string, std::pair<int64_t, uint64_t>> types;
  uint64_t bytes = 0;
  for (const TensorInfo& info : model.tensors()) {
    auto& [count, size] = types[std::string(dtype_name(info.dtype))];
    ++count;
    size += info.bytes;
    bytes += info.bytes;
  }
  Json facts = {
      {"path", model.path()},
      {"container", model.container()},
      {"architecture", arch.family},
      {"parameters", arch.parameters},
      {"tensors", model.tensors().size()},
      {"size_bytes", model.size_bytes()},
      {"bits_per_weight", 8.0 * static_cast<double>(bytes) / static_cast<double>(arch.parameters)},
      {"types", Json::object()}};
  for (const auto& [type, sum] : types)
    facts["types"][type] = {{"tensors", sum.first}, {"bytes", sum.second}};
  facts["layers"] = arch.layers;
  facts["hidden"] = arch.hidden;
  facts["ffn"] = arch.ffn;
  facts["heads"] = arch.heads;
  facts["kv_heads"] = arch.kv_heads;
  facts["head_dim"] = arch.head_dim;
  facts["vocab"] = arch.vocab;
  facts["context"] = arch.context;
  facts["norm_eps"] = arch.norm_eps;
  facts["tied"] = arch.tied;
  facts["biases"] = {
      {"qkv", arch.qkv_bias}, {"attention_output", arch.output_bias}, {"mlp", arch.mlp_bias}};
  facts["rope"] = rope_facts(arch.rope);
  facts["particulars"] = particulars(arch);
  facts["tokenizer"] = tokenizer_facts(model);
  facts["warnings"] = warnings_of(model, facts);
  if (!model.assets().carried.empty()) facts["carried_tensors"] = model.assets().carried.size();
  return facts;
}

void print_facts(const Json& facts, const Architecture& arch, std::ostream& out) {
  const auto size = facts["size_bytes"].get<uint64_t>();
  out << cat(facts["path"].get<std::string>(), ": ", arch.family, ", ",
             human_count(static_cast<uint64_t>(arch.parameters)), " parameters in ",
             facts["tensors"].get<size_t>(), " tensors, ", human_bytes(size), ", ",
             fixed(facts["bits_per_weight"].get<double>(), 2), " bits per weight, ",
             facts["container"].get<std::string>(), "\n");
  out << cat("  ", arch.layers, " layers, width ", arch.hidden, ", FFN ", arch.ffn, ", ",
             arch.heads, " heads (", arch.kv_heads, " for keys and values) of ", arch.head_dim,
             ", vocabulary ", arch.vocab,
             arch.encoder ? ""
             : arch.tied  ? ", head tied to the embedding"
                          : ", head of its own",
             "\n");
  std::vector<std::string> biases;
  if (arch.qkv_bias) biases.push_back("query, key, value");
  if (arch.output_bias) biases.push_back("attention output");
  if (arch.mlp_bias) biases.push_back("FFN");
  if (!biases.empty()) out << "  biases: " << join(biases, "; ") << "\n";
  out << "  context " << arch.context;
  if (arch.rope.dims > 0) out << ", rope theta " << arch.rope.theta;
  if (arch.rope.dims > 0 && arch.rope.dims < arch.head_dim)
    out << " for " << arch.rope.dims << " of " << arch.head_dim << " dimensions";
  if (arch.rope.scaling != RopeScaling::kNone)
    out << ", " << rope_scaling_name(arch.rope.scaling) << " scaling";
  if (facts["rope"].is_object() && facts["rope"].contains("factor"))
    out << " by " << facts["rope"]["factor"];
  if (facts["rope"].is_object() && facts["rope"].contains("original_context"))
    out << " from " << facts["rope"]["original_context"];
  std::vector<std::string> particular;
  for (const auto& [name, value] : facts["particulars"].items()) {
    const bool usual = value == "silu" || value == "rms" || value.is_object();
    std::string words = name;
    std::replace(words.begin(), words.end(), '_', ' ');
    if (!usual) {
      particular.push_back(
          value == true
              ? words
              : cat(words, " ", value.is_string() ? value.get<std::string>() : value.dump()));
    }
  }
  if (!particular.empty()) out << "\n  " << join(particular, ", ");
  const Json& tokenizer = facts["tokenizer"];
  out << "\n  tokenizer: "
      << (tokenizer["type"].is_null() ? "none" : tokenizer["type"].get<std::string>());
  if (tokenizer.contains("pre") && !tokenizer["pre"].get<std::string>().empty())
    out << " (" << tokenizer["pre"].get<std::string>() << ")";
  out << "; chat template: " << (tokenizer["chat_template"].get<bool>() ? "yes" : "none") << "\n";
  for (const auto& [type, sum] : facts["types"].items()) {
    out << "  " << type << ": " << sum["tensors"] << " tensors, "
        << human_bytes(sum["bytes"].get<uint64_t>()) << "\n";
  }
  if (facts.contains("carried_tensors"))
    out << "  and " << facts["carried_tensors"] << " tensors of another network, carried along\n";
  for (const Json& warning : facts["warnings"])
    out << "  warning: " << warning.get<std::string>() << "\n";
}

class InspectCommand : public Command {
 public:
  std::string_view name() const override { return "inspect"; }
  std::string_view summary() const override {
    return "Show a checkpoint's architecture, size and types, from its headers";
  }
  bool runtime_only() const override { return true; }

  void visit(Fields& fields) override {
    fields.visit({.name = "model",
                  .help = "A Hugging Face folder or a GGUF file.",
                  .required = true,
                  .positional = true,
                  .value_name = "MODEL"},
                 model_);
    fields.visit({.name = "tensors", .help = "List every tensor too."}, tensors_);
  }

  Json run(Context&, std::ostream& out, ExitCode&) override {
    const auto model = Model::open(model_);
    Json facts = model_facts(*model);
    print_facts(facts, model->arch(), out);
    if (!tensors_) return facts;
    Json& list = facts["tensor_list"] = Json::array();
    std::vector<std::vector<std::string>> rows;
    for (const TensorInfo& info : model->tensors()) {
      list.push_back({{"name", info.name},
                      {"file_name", info.file_name},
                      {"type", dtype_name(info.dtype)},
                      {"shape", info.shape},
                      {"bytes", info.bytes}});
      rows.push_back({info.name, info.file_name, std::string(dtype_name(info.dtype)),
                      shape_text(info.shape), human_bytes(info.bytes)});
    }
    out << table({"tensor", "in the file", "type", "shape", "bytes"}, rows,
                 {false, false, false, false, true});
    return facts;
  }

 private:
  std::string model_;
  bool tensors_ = false;
};

}  // namespace

std::unique_ptr<Command> command_inspect();
std::unique_ptr<Command> command_inspect() { return std::make_unique<InspectCommand>(); }

}  // namespace slmc
