// The files of LoRA adapters. PEFT's: adapter_config.json and adapter_model.safetensors, with
// "base_model.model.<module>.lora_A.weight" [rank, in] and "lora_B" [out, rank]. llama.cpp's GGUF:
// general.type "adapter", adapter.type "lora", adapter.lora.alpha, "<tensor>.lora_a" and ".lora_b",
// B's rows in the order that the model's GGUF has them.
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/adapter.h"
#include "formats/family.h"
#include "formats/gguf.h"
#include "formats/lora.h"
#include "formats/model_places.h"
#include "formats/safetensors.h"
#include "formats/tensor_stream.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "base_model.model.";

using Values = std::vector<float>;

Values decoded(const TensorView& view) {
  Values values(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), values.data());
  return values;
}

TensorView view_of(std::shared_ptr<Values> values, std::vector<int64_t> shape) {
  return {.data = reinterpret_cast<const std::byte*>(values->data()),
          .dtype = DType::kF32,
          .shape = std::move(shape),
          .owner = values};
}

TensorSpec spec_of(const Architecture& arch, const std::string& tensor) {
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch))
    if (spec.name == tensor) return spec;
  SLMC_CHECK(false, "no tensor named " + tensor);
  return {};
}

/// B between canonical rows and the GGUF's: each tensor's rows are reordered as that tensor's are.
Values reordered(const Values& b, int64_t rank, const LoraTarget& target, const Architecture& arch,
                 bool to_gguf) {
  Values out(b.size());
  int64_t first = 0;
  for (size_t i = 0; i < target.tensors.size(); ++i) {
    const FilePlace place = spec_of(arch, target.tensors[i]).gguf;
    const int64_t rows = target.rows[i];
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t theirs =
          place.order == GgufRows::kRopePairs ? gguf_row(row, rows, place.heads) : row;
      const int64_t from = first + (to_gguf ? row : theirs), to = first + (to_gguf ? theirs : row);
      std::copy_n(b.begin() + from * rank, rank, out.begin() + to * rank);
    }
    first += rows;
  }
  return out;
}

/// The name of the target's matrix in a GGUF. Throws if that fuses or splits it otherwise.
std::string gguf_name(const LoraTarget& target, const Architecture& arch, const std::string& path) {
  const TensorSpec first = spec_of(arch, target.tensors.front());
  const int64_t whole = first.gguf.rows > 0 ? first.gguf.rows : first.shape[0];
  if (whole != target.all_rows())
    throw_unsupported(cat(path, ": a GGUF of ", arch.family, " keeps ", target.module,
                          " in other pieces than the adapter; write a PEFT folder"));
  return first.gguf.name;
}

/// The rank that all of the targets' tensors agree on, their shapes checked.
int64_t checked_rank(const std::vector<LoraTarget>& targets, const WeightSource& values,
                     const std::string& path) {
  int64_t rank = 0;
  for (const LoraTarget& target : targets) {
    if (!values.has(target.a()) || !values.has(target.b()))
      throw_bad_input(
          cat(path, ": ", target.module, ": lora_A and lora_B belong together; one is missing"));
    const std::vector<int64_t> a = values.view(target.a()).shape, b = values.view(target.b()).shape;
    if (a.size() != 2 || b.size() != 2 || a[0] < 1 || a[1] != target.columns || b[1] != a[0] ||
        b[0] != target.all_rows())
      throw_bad_input(cat(path, ": ", target.module, ": expected A [rank, ", target.columns,
                          "] and B [", target.all_rows(), ", rank], found ", shape_text(a), " and ",
                          shape_text(b), "; is the adapter of another model?"));
    if (rank == 0) rank = a[0];
    if (a[0] != rank)
      throw_unsupported(cat(path, ": ", target.module, ": rank ", a[0], " beside rank ", rank,
                            "; slmc reads adapters of one rank"));
  }
  if (rank == 0) throw_bad_input(cat(path, ": no lora_A and lora_B found"));
  return rank;
}

void refuse(bool present, const std::string& path, const std::string& what) {
  if (present) throw_unsupported(cat(path, ": ", what, " is not supported; slmc reads plain LoRA"));
}

Lora read_config(const std::string& path) {
  const std::string file = path + "/adapter_config.json";
  const Json json = read_json(file);
  if (json.is_object() && !json.contains("peft_type") && json.contains("config"))
    throw_unsupported(cat(file,
                          ": a bottleneck adapter cannot be merged into weights; slmc eval, "
                          "generate and chat run it by --adapter"));
  if (!json.is_object() || !json.contains("peft_type"))
    throw_bad_input(cat(file, ": expected an object with \"peft_type\""));
  if (json["peft_type"] != "LORA")
    throw_unsupported(cat(file, ": peft_type ", json["peft_type"].dump(),
                          " is no LoRA, which alone can be merged into weights; slmc eval, "
                          "generate and chat run prompts by --adapter"));
  const auto set = [&](const char* key) {
    if (!json.contains(key)) return false;
    const Json& value = json[key];
    return !value.is_null() && value != false && !(value.is_structured() && value.empty());
  };
  for (const char* key : {"use_dora", "rank_pattern", "alpha_pattern", "modules_to_save",
                          "lora_bias", "trainable_token_indices", "layer_replication",
                          "target_parameters", "alora_invocation_tokens", "use_qalora"})
    refuse(set(key), file, key);
  refuse(json.value("bias", "none") != "none", file, "bias");
  Lora lora;
  const auto number = [&](const char* key, double fallback) {
    if (!json.contains(key) || json[key].is_null()) return fallback;
    if (!json[key].is_number())
      throw_bad_input(cat(file, ": ", key, ": expected a number, found ", json[key].dump()));
    return json[key].get<double>();
  };
  lora.alpha = number("lora_alpha", 8);
  lora.dropout = number("lora_dropout", 0);
  lora.root_scale = set("use_rslora");
  return lora;
}

LoraAdapter read_peft(const std::string& path, const Architecture& arch) {
  LoraAdapter adapter;
  adapter.lora = read_config(path);
  const auto file = SafetensorsFile::open(path + "/adapter_model.safetensors");
  std::map<std::string, std::pair<size_t, char>> known;  // File name -> target, A or B.
  const std::vector<LoraTarget> all = lora_targets(arch, {});
  for (size_t i = 0; i < all.size(); ++i)
    for (const char side : {'A', 'B'})
      known[cat(kPrefix, all[i].module, ".lora_", side, ".weight")] = {i, side};
  auto values = std::make_shared<MemoryWeights>(arch);
  std::set<size_t> used;
  for (const SafetensorsEntry& entry : file.tensors) {
    const auto found = known.find(entry.name);
    if (found == known.end())
      throw_bad_input(cat(path, ": tensor ", entry.name, " belongs to no matrix of this ",
                          arch.family, " model's blocks"));
    const auto [target, side] = found->second;
    used.insert(target);
    values->add(side == 'A' ? all[target].a() : all[target].b(),
                {file.file->data() + entry.offset, entry.dtype, entry.shape, file.file});
  }
  for (const size_t target : used) adapter.lora.targets.push_back(all[target]);
  adapter.lora.rank = checked_rank(adapter.lora.targets, *values, path);
  adapter.values = values;
  return adapter;
}

LoraAdapter read_gguf_adapter(const std::string& path, const Architecture& arch) {
  const GgufFile file = GgufFile::open(path);
  if (file.keys.string_or("general.type", "", path) != "adapter" ||
      file.keys.string_or("adapter.type", "", path) != "lora")
    throw_bad_input(cat(path, ": expected a LoRA adapter (general.type adapter), found a model"));
  const std::string family = file.keys.string("general.architecture", path),
                    ours = gguf_architecture(family_by_name(arch.family));
  if (family != ours)
    throw_bad_input(cat(path, ": an adapter for architecture ", family, ", the model is ", ours));
  LoraAdapter adapter;
  adapter.lora.alpha = file.keys.number("adapter.lora.alpha", path);
  auto values = std::make_shared<MemoryWeights>(arch);
  size_t taken = 0;
  for (const LoraTarget& target : lora_targets(arch, {})) {
    const std::string name = spec_of(arch, target.tensors.front()).gguf.name;
    const GgufTensor *const a = file.find(name + ".lora_a"), *const b = file.find(name + ".lora_b");
    if (a == nullptr && b == nullptr) continue;
    gguf_name(target, arch, path);
    for (const auto& [tensor, key] : {std::pair{a, target.a()}, std::pair{b, target.b()}}) {
      if (tensor == nullptr) continue;
      ++taken;
      values->add(key,
                  {file.file->data() + tensor->offset, tensor->dtype, tensor->shape, file.file});
    }
    adapter.lora.targets.push_back(target);
  }
  if (taken != file.tensors.size())
    throw_bad_input(cat(path, ": ", file.tensors.size() - taken, " of ", file.tensors.size(),
                        " tensors belong to no matrix of this ", arch.family, " model's blocks"));
  adapter.lora.rank = checked_rank(adapter.lora.targets, *values, path);
  auto canonical = std::make_shared<MemoryWeights>(arch);
  for (const LoraTarget& target : adapter.lora.targets) {
    const TensorView b = values->view(target.b());
    canonical->add(target.a(), values->view(target.a()));
    canonical->add(target.b(), view_of(std::make_shared<Values>(reordered(
                                           decoded(b), adapter.lora.rank, target, arch, false)),
                                       b.shape));
  }
  adapter.values = canonical;
  return adapter;
}

/// `values` in the shape of `view`, as they are written.
AdapterPiece make_piece(const std::string& name, const TensorView& view, const Values& values,
                        DType dtype) {
  return adapter_piece(
      name, {reinterpret_cast<const std::byte*>(values.data()), DType::kF32, view.shape, nullptr},
      dtype);
}

/// The modules' last names if every module of that name is adapted, else their full names.
std::vector<std::string> target_modules(const Lora& lora, const Architecture& arch) {
  const auto last = [](const std::string& module) { return module.substr(module.rfind('.') + 1); };
  std::map<std::string, int64_t> missing;
  for (const LoraTarget& target : lora_targets(arch, {})) ++missing[last(target.module)];
  for (const LoraTarget& target : lora.targets) --missing[last(target.module)];
  std::set<std::string> names;
  for (const LoraTarget& target : lora.targets)
    names.insert(missing[last(target.module)] == 0 ? last(target.module) : target.module);
  return {names.begin(), names.end()};
}

Json config_json(const Lora& lora, const Architecture& arch, const std::string& base) {
  const bool transposed = std::any_of(lora.targets.begin(), lora.targets.end(),
                                      [](const LoraTarget& target) { return target.transposed; });
  return Json{{"peft_type", "LORA"},
              {"task_type", arch.head == Head::kLanguage ? Json("CAUSAL_LM") : Json()},
              {"base_model_name_or_path", base},
              {"r", lora.rank},
              {"lora_alpha", lora.alpha},
              {"lora_dropout", lora.dropout},
              {"use_rslora", lora.root_scale},
              {"target_modules", target_modules(lora, arch)},
              {"bias", "none"},
              {"fan_in_fan_out", transposed},
              {"init_lora_weights", true},
              {"inference_mode", true},
              {"modules_to_save", nullptr}};
}

void write_peft(const LoraAdapter& adapter, const Architecture& arch, const std::string& path,
                const std::string& base, DType dtype, bool force) {
  std::vector<AdapterPiece> pieces;
  for (const LoraTarget& target : adapter.lora.targets)
    for (const char side : {'A', 'B'})
      pieces.push_back(adapter_piece(cat(kPrefix, target.module, ".lora_", side, ".weight"),
                                     adapter.values->view(side == 'A' ? target.a() : target.b()),
                                     dtype));
  write_adapter_folder(path, config_json(adapter.lora, arch, base), "adapter_model.safetensors",
                       pieces, dtype, force);
}

void write_gguf_adapter(const LoraAdapter& adapter, const Architecture& arch,
                        const std::string& path, const std::string& base, DType dtype, bool force) {
  check_output(path, force);
  const auto padded = [](uint64_t bytes) { return (bytes + 31) / 32 * 32; };
  GgufKeys keys;
  keys.set("general.architecture", gguf_architecture(family_by_name(arch.family)));
  keys.set("general.type", std::string("adapter"));
  keys.set("general.name", fs::path(base).stem().string() + " adapter");
  keys.set("adapter.type", std::string("lora"));
  // llama.cpp's scale is alpha / rank.
  keys.set("adapter.lora.alpha",
           static_cast<float>(adapter.lora.scale() * static_cast<double>(adapter.lora.rank)));
  std::vector<GgufTensor> tensors;
  std::vector<AdapterPiece> pieces;
  uint64_t offset = 0;
  for (const LoraTarget& target : adapter.lora.targets) {
    const std::string name = gguf_name(target, arch, path);
    for (const bool first : {true, false}) {
      const TensorView view = adapter.values->view(first ? target.a() : target.b());
      const Values values =
          first ? decoded(view) : reordered(decoded(view), adapter.lora.rank, target, arch, true);
      pieces.push_back(make_piece(name + (first ? ".lora_a" : ".lora_b"), view, values, dtype));
      tensors.push_back(
          {pieces.back().name, dtype, view.shape, offset, pieces.back().bytes.size()});
      offset = padded(offset + pieces.back().bytes.size());
    }
  }
  const std::string header = gguf_header(keys, tensors);
  AtomicFile file(path);
  file.reserve(header.size() + offset);
  file.write_at(0, header.data(), header.size());
  for (size_t i = 0; i < pieces.size(); ++i)
    file.write_at(header.size() + tensors[i].offset, pieces[i].bytes.data(),
                  pieces[i].bytes.size());
  file.commit();
}

}  // namespace

LoraAdapter read_lora(const std::string& path, const Architecture& arch) {
  if (fs::is_directory(path)) return read_peft(path, arch);
  if (!fs::exists(path)) throw_bad_input(cat(path, ": adapter not found"));
  return read_gguf_adapter(path, arch);
}

void write_lora(const LoraAdapter& adapter, const Architecture& arch, const std::string& path,
                const std::string& base, DType dtype, bool force) {
  if (path.ends_with(".gguf"))
    write_gguf_adapter(adapter, arch, path, base, dtype, force);
  else
    write_peft(adapter, arch, path, base, dtype, force);
  const LoraAdapter back = read_lora(path, arch);
  SLMC_CHECK(back.lora.targets.size() == adapter.lora.targets.size(),
             cat(path, ": ", back.lora.targets.size(), " adapted matrices were written, ",
                 adapter.lora.targets.size(), " were meant"));
  for (const LoraTarget& target : adapter.lora.targets)
    for (const std::string& name : {target.a(), target.b()}) {
      const TensorView meant = adapter.values->view(name), written = back.values->view(name);
      const AdapterPiece piece = make_piece(name, meant, decoded(meant), dtype);
      const Values expected = decoded({piece.bytes.data(), dtype, meant.shape, nullptr});
      SLMC_CHECK(expected == decoded(written),
                 cat(path, ": tensor ", name, " is not what was meant"));
    }
}

}  // namespace slmc
