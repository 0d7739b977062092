#include "quantize/scheme.h"

#include <cstdlib>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/compressed_tensors.h"
#include "formats/model_writer.h"

namespace slmc {

const std::vector<const Scheme& (*)()>&
scheme_table();  // Made by the build from quantize/schemes/*.cc.

const std::vector<const Scheme*>& schemes() {
  static const std::vector<const Scheme*> all = [] {
    std::vector<const Scheme*> list;
    for (auto* entry : scheme_table()) list.push_back(&entry());
    return list;
  }();
  return all;
}

std::vector<std::string> scheme_names() {
  std::vector<std::string> names;
  for (const Scheme* scheme : schemes()) names.push_back(scheme->name);
  return names;
}

const Scheme& scheme_by_name(const std::string& name) {
  for (const Scheme* scheme : schemes()) {
    if (scheme->name == name) return *scheme;
  }
  throw_usage(cat("scheme '", name, "' is not known; expected one of ", join(scheme_names(), ", "),
                  did_you_mean(name, scheme_names())));
}

namespace {

constexpr int64_t kLargestOfOldBlocks = 32;

/// What llama.cpp takes where rows do not divide by `type`'s block.
DType substitute_of(DType type) {
  switch (type) {
    case DType::kQ2_K:
    case DType::kQ3_K:
      return DType::kQ4_0;
    case DType::kIQ4_XS:
      return DType::kIQ4_NL;
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    case DType::kQ6_K:
      return DType::kQ8_0;
    default:
      return DType::kF16;
  }
}

TypeChoice fitting(TypeChoice choice, int64_t columns) {
  const DType wanted = choice.type;
  if (columns % dtype_block(wanted) == 0) return choice;
  choice.type = columns % kLargestOfOldBlocks == 0 ? substitute_of(wanted) : DType::kF16;
  choice.reason = cat("rows of ", columns, " do not divide by ", dtype_block(wanted), ", so not ",
                      dtype_name(wanted), " (", choice.reason, ")");
  choice.substituted = true;
  return choice;
}

/// Compressed-tensors: the layers within blocks, nothing else.
TypeChoice group_choice(const Scheme& scheme, const TensorInfo& tensor, const MatrixRole& role) {
  if (role.part == MatrixPart::kHead || role.part == MatrixPart::kEmbedding ||
      role.part == MatrixPart::kFixed) {
    return {dtype_is_float(tensor.dtype) ? tensor.dtype : DType::kBF16,
            cat("scheme ", scheme.name, ": embeddings and head keep their type"), false};
  }
  return {scheme.type, cat("scheme ", scheme.name), false};
}

/// "blk.12.attn_v.weight" -> 12.
int64_t layer_of(const std::string& name) {
  return name.starts_with("blk.") ? std::atoll(name.c_str() + 4) : 0;
}

}  // namespace

MatrixRole matrix_role(const TensorInfo& tensor, const Architecture& arch, bool weighted) {
  const std::string& name = tensor.name;
  const auto has = [&name](std::string_view part) { return name.find(part) != std::string::npos; };
  MatrixRole role{.layer = layer_of(name),
                  .layers = arch.layers,
                  .heads_per_kv = arch.kv_heads > 0 ? arch.heads / arch.kv_heads : 1,
                  .weighted = weighted};
  if (name == "output.weight" || (arch.tied && name == "token_embd.weight")) {
    role.part = MatrixPart::kHead;
  } else if (name == "token_embd.weight") {
    role.part = MatrixPart::kEmbedding;
  } else if (gguf_keeps_f32(name, tensor.shape)) {
    role.part = MatrixPart::kFixed;
  } else if (has("attn_v.weight") || has("attn_qkv.weight")) {
    role.part = MatrixPart::kValues;
  } else if (has("attn_output.weight")) {
    role.part = MatrixPart::kOutput;
  } else if (has("ffn_down")) {
    role.part = MatrixPart::kFfnDown;
  }
  return role;
}

TypeChoice choose_type(const Scheme& scheme, const TensorInfo& tensor, const Architecture& arch,
                       bool weighted) {
  const MatrixRole role = matrix_role(tensor, arch, weighted);
  const int64_t columns = tensor.shape.back();
  if (is_group_type(scheme.type)) return group_choice(scheme, tensor, role);
  if (role.part == MatrixPart::kFixed && scheme.type != DType::kF32)
    return {DType::kF32, "llama.cpp reads positions and token types as f32", false};
  const std::string reason = cat("scheme ", scheme.name);
  if (dtype_is_float(scheme.type)) return {scheme.type, reason, false};
  if (role.part == MatrixPart::kHead) {
    const char* what = arch.tied ? ": embedding tied to the head" : ": head";
    const DType head = scheme.type == DType::kQ8_0 ? DType::kQ8_0 : DType::kQ6_K;
    return fitting({head, reason + what, false}, columns);
  }
  DType type = scheme.type;
  if (scheme.choose != nullptr && role.part != MatrixPart::kEmbedding) type = scheme.choose(role);
  // llama.cpp's exception for Llama and Qwen2 of 70B: attn_v is an eighth of attn_q there.
  const bool small_values =
      role.part == MatrixPart::kValues && arch.layers == 80 &&
      (arch.family == "qwen2" || (arch.family == "llama" && role.heads_per_kv > 1));
  if (small_values && (type == DType::kQ3_K || type == DType::kQ4_K)) type = DType::kQ5_K;
  return fitting(
      {type, type == scheme.type ? reason : reason + ": more bits for this part and layer", false},
      columns);
}

}  // namespace slmc
