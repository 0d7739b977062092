#include "formats/family.h"

#include <algorithm>
#include <map>
#include <set>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

const std::vector<const Family& (*)()>& family_table();  // Written by the build from arch/*.cc.

namespace {

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Keys that say nothing of the arithmetic of inference.
const std::set<std::string>& silent_keys() {
  static const std::set<std::string> keys = {"_name_or_path",
                                             "architectures",
                                             "attention_dropout",
                                             "auto_map",
                                             "dtype",
                                             "id2label",
                                             "initializer_range",
                                             "label2id",
                                             "model_type",
                                             "resid_pdrop",
                                             "embd_pdrop",
                                             "torch_dtype",
                                             "transformers_version",
                                             "use_cache",
                                             "unsloth_fixed",
                                             "unsloth_version",
                                             "return_dict",
                                             "output_attentions",
                                             "output_hidden_states",
                                             "hidden_dropout",
                                             "attention_probs_dropout_prob",
                                             "hidden_dropout_prob",
                                             "pretraining_tp",
                                             "bos_token_id",
                                             "eos_token_id",
                                             "pad_token_id"};
  return keys;
}

/// Keys of `config` that a family's own configuration does not have and that may matter.
std::vector<std::string> foreign_keys(const Json& config, const Json& known) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : config.items()) {
    const bool off = value.is_null() || value == false || value == 0;
    if (!off && !known.contains(key) && silent_keys().count(key) == 0) keys.push_back(key);
  }
  return keys;
}

/// The known family whose configuration has the most keys in common, and what is left over.
std::string closest_family(const Json& config) {
  const Family* best = nullptr;
  std::vector<std::string> left;
  size_t most = 0;
  // Llama first: the plainest, when several are equally near.
  std::vector<const Family*> order = families();
  std::stable_partition(order.begin(), order.end(),
                        [](const Family* family) { return family->name == "llama"; });
  for (const Family* family : order) {
    const Json empty = {{"architectures", {family->hf_architectures.at(0)}}};
    Json known;
    try {
      known = family->to_config(family->from_config(empty, family->name), empty);
    } catch (const Error&) {
      continue;
    }
    for (const char* key : {"head_dim", "rope_theta", "rope_scaling", "rope_parameters"})
      if (known.contains("rope_theta")) known[key] = nullptr;
    size_t shared = 0;
    for (const auto& [key, value] : config.items())
      shared += known.contains(key) && silent_keys().count(key) == 0;
    const std::vector<std::string> foreign = foreign_keys(config, known);
    if (best != nullptr && (shared < most || (shared == most && foreign.size() >= left.size())))
      continue;
    best = family, most = shared, left = foreign;
  }
  if (best == nullptr || most < 3) return "";
  const std::string name = best->hf_architectures.at(0);
  if (left.empty()) return cat("; its configuration reads like that of ", name);
  return cat("; the closest known is ", name, ", from which it differs in ", join(left, ", "));
}

[[noreturn]] void unknown(const std::string& what, const std::string& name,
                          std::vector<std::string> known, const std::string& closest = "") {
  throw_unsupported(cat(what, " \"", name.substr(0, 60), "\" is not implemented", closest,
                        "; known are ", join(known, ", "), did_you_mean(name, known)));
}

}  // namespace

namespace {

std::vector<const Family*>& all_families() {
  static std::vector<const Family*> all = [] {
    std::vector<const Family*> found;
    for (const auto& family : family_table()) found.push_back(&family());
    return found;
  }();
  return all;
}

}  // namespace

const std::vector<const Family*>& families() { return all_families(); }

void add_family(const Family& family) { all_families().push_back(&family); }

double implied_query_scale(const Architecture& arch) {
  const Family& family = family_by_name(arch.family);
  if (family.gguf_query_scale != nullptr) return family.gguf_query_scale(arch);
  Architecture plain = arch;
  plain.attention_scale = 0;
  return query_scale(plain);
}

const Family& family_by_name(const std::string& name) {
  std::vector<std::string> known;
  for (const Family* family : families()) {
    if (family->name == name) return *family;
    known.push_back(family->name);
  }
  unknown("model family", name, known);
}

const std::string& gguf_architecture(const Family& family) {
  return family.gguf_architecture.empty() ? family.name : family.gguf_architecture;
}

const Family& family_for_gguf(const std::string& architecture, const std::string& where) {
  std::vector<std::string> known;
  for (const Family* family : families()) {
    if (family->name == architecture && gguf_architecture(*family) == architecture) return *family;
    if (family->gguf_architecture.empty()) known.push_back(family->name);
  }
  unknown(cat(where, ": general.architecture"), architecture, known);
}

std::vector<int64_t> stored_shape(const TensorSpec& spec, const FilePlace& place) {
  std::vector<int64_t> shape = spec.shape;
  if (place.rows > 0) shape[0] = place.rows;
  if (place.transposed) std::swap(shape[0], shape[1]);
  return shape;
}

void fuse_shared_names(std::vector<TensorSpec>& tensors) {
  for (FilePlace TensorSpec::*container : {&TensorSpec::hf, &TensorSpec::gguf}) {
    std::map<std::string, int64_t> rows;
    for (TensorSpec& spec : tensors) {
      int64_t& before = rows[(spec.*container).name];
      (spec.*container).first_row = before;
      before += spec.shape[0];
    }
    for (TensorSpec& spec : tensors) {
      const int64_t all = rows[(spec.*container).name];
      (spec.*container).rows = all == spec.shape[0] ? 0 : all;
    }
  }
}

const Family& family_for_config(const Json& config, const std::string& where) {
  if (!config.is_object()) throw_bad_input(cat(where, ": expected an object"));
  std::vector<std::string> known;
  // The class decides; a configuration without one (a hand-written student's) goes by its
  // model_type.
  if (config.contains("architectures") && config["architectures"].is_array() &&
      !config["architectures"].empty()) {
    const Json& first = config["architectures"][0];
    if (!first.is_string()) throw_bad_input(cat(where, ": architectures: expected names"));
    for (const Family* family : families()) {
      if (holds(family->hf_architectures, first.get<std::string>())) return *family;
      known.insert(known.end(), family->hf_architectures.begin(), family->hf_architectures.end());
    }
    unknown(cat(where, ": architecture"), first.get<std::string>(), known, closest_family(config));
  }
  if (!config.contains("model_type") || !config["model_type"].is_string())
    throw_bad_input(cat(where, ": neither architectures nor model_type is there"));
  const auto type = config["model_type"].get<std::string>();
  for (const Family* family : families()) {
    if (holds(family->hf_model_types, type)) return *family;
    known.insert(known.end(), family->hf_model_types.begin(), family->hf_model_types.end());
  }
  unknown(cat(where, ": model_type"), type, known, closest_family(config));
}

}  // namespace slmc
