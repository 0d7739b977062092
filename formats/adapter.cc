#include "formats/adapter.h"

#include <algorithm>
#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/bottleneck.h"
#include "formats/lora.h"
#include "formats/prompt_tuning.h"
#include "formats/safetensors.h"
#include "formats/tensor_stream.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

std::vector<float> floats_of(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), values.data());
  return values;
}

std::string weights_file(AdapterKind kind) {
  return kind == AdapterKind::kPrompt ? "adapter_model.safetensors" : "adapter.safetensors";
}

}  // namespace

AdapterKind adapter_kind(const std::string& path) {
  if (!fs::exists(path)) throw_bad_input(cat(path, ": adapter not found"));
  if (!fs::is_directory(path)) return AdapterKind::kLora;
  const std::string file = path + "/adapter_config.json";
  const Json json = read_json(file);
  if (json.is_object() && json.contains("peft_type")) {
    if (json["peft_type"] == "LORA") return AdapterKind::kLora;
    if (json["peft_type"] == "PROMPT_TUNING") return AdapterKind::kPrompt;
    throw_unsupported(
        cat(file, ": peft_type ", json["peft_type"].dump(), "; slmc reads LORA and PROMPT_TUNING"));
  }
  if (json.is_object() && json.contains("config") && json["config"].is_object())
    return AdapterKind::kBottleneck;
  throw_bad_input(cat(file,
                      ": expected an object with \"peft_type\" (PEFT) or \"config\" (a "
                      "bottleneck adapter)"));
}

bool SideAdapter::has(const std::string& name) const {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const SideTensor& tensor) { return tensor.name == name; });
}

SideAdapter read_side_adapter(const std::string& path, const Architecture& arch) {
  return adapter_kind(path) == AdapterKind::kPrompt ? read_prompt(path, arch)
                                                    : read_bottleneck(path, arch);
}

void write_side_adapter(const SideAdapter& adapter, const Architecture& arch,
                        const std::string& path, const std::string& base, DType dtype, bool force) {
  Json config = adapter.config;
  config[adapter.kind == AdapterKind::kPrompt ? "base_model_name_or_path" : "model_name"] = base;
  std::vector<AdapterPiece> pieces;
  for (const SideTensor& tensor : adapter.tensors)
    pieces.push_back(adapter_piece(tensor.file_name, adapter.values->view(tensor.name), dtype));
  write_adapter_folder(path, config, weights_file(adapter.kind), pieces, dtype, force);
  const SideAdapter back = read_side_adapter(path, arch);
  SLMC_CHECK(back.tensors.size() == adapter.tensors.size(),
             cat(path, ": ", back.tensors.size(), " tensors were written, ", adapter.tensors.size(),
                 " were meant"));
  for (size_t i = 0; i < pieces.size(); ++i) {
    const TensorView written = back.values->view(adapter.tensors[i].name);
    SLMC_CHECK(
        floats_of({pieces[i].bytes.data(), dtype, pieces[i].shape, nullptr}) == floats_of(written),
        cat(path, ": tensor ", pieces[i].name, " is not what was meant"));
  }
}

const SideShape& side_shape(const WeightSource& source) {
  static const SideShape kNone;
  const auto* const side = dynamic_cast<const SideWeights*>(&source);
  return side == nullptr ? kNone : side->shape();
}

void visit_adapter(Fields& fields, std::string& adapter) {
  fields.visit({.name = "adapter",
                .help = "What was tuned beside the model: LoRA (PEFT's folder, or a GGUF), merged "
                        "in memory; a prompt (PEFT's folder), before every text; bottleneck "
                        "adapters (a folder of the package adapters).",
                .value_name = "FOLDER|FILE"},
               adapter);
}

std::shared_ptr<const WeightSource> with_adapter(std::shared_ptr<const Model> model,
                                                 const std::string& adapter) {
  if (adapter.empty()) return model;
  if (adapter_kind(adapter) == AdapterKind::kLora) {
    LoraAdapter values = read_lora(adapter, model->arch());
    return std::make_shared<MergedWeights>(std::move(model), std::move(values), false);
  }
  SideAdapter side = read_side_adapter(adapter, model->arch());
  return std::make_shared<SideWeights>(std::move(model), std::move(side));
}

std::string side_note(const SideAdapter& adapter) {
  if (adapter.kind == AdapterKind::kPrompt)
    return cat(adapter.shape.prompt_tokens, " virtual tokens before every text");
  return cat("bottlenecks of width ", adapter.shape.bottleneck.width, " behind ",
             adapter.tensors.size() / 4, " branches");
}

std::string adapter_note(const std::string& path, const Architecture& arch) {
  if (adapter_kind(path) == AdapterKind::kLora) {
    const LoraAdapter adapter = read_lora(path, arch);
    return cat("rank ", adapter.lora.rank, " on ", adapter.lora.targets.size(), " matrices");
  }
  return side_note(read_side_adapter(path, arch));
}

AdapterPiece adapter_piece(const std::string& name, const TensorView& view, DType dtype) {
  AdapterPiece piece{name, view.shape, {}};
  piece.bytes.resize(dtype_row_bytes(dtype, view.columns()) * static_cast<uint64_t>(view.rows()));
  encode_rows(dtype, floats_of(view).data(), view.rows(), view.columns(), piece.bytes.data(), name);
  return piece;
}

void write_adapter_folder(const std::string& path, const Json& config, const std::string& file,
                          const std::vector<AdapterPiece>& pieces, DType dtype, bool force) {
  std::vector<SafetensorsEntry> entries;
  uint64_t offset = 0;
  for (const AdapterPiece& piece : pieces) {
    entries.push_back({piece.name, dtype, piece.shape, offset, piece.bytes.size()});
    offset += piece.bytes.size();
  }
  AtomicFolder folder(path, force);
  {
    AtomicFile out(folder.partial_path() + "/" + file);
    const std::string header = safetensors_header(entries, {{"format", "pt"}});
    out.reserve(header.size() + offset);
    out.write_at(0, header.data(), header.size());
    for (size_t i = 0; i < pieces.size(); ++i)
      out.write_at(header.size() + entries[i].offset, pieces[i].bytes.data(),
                   pieces[i].bytes.size());
    out.commit();
  }
  write_text(folder.partial_path() + "/adapter_config.json", config.dump(2) + "\n");
  folder.commit();
}

}  // namespace slmc
