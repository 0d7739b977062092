#include "formats/family.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

const std::vector<const Family& (*)()>& family_table();  // Written by the build from arch/*.cc.

namespace {

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

[[noreturn]] void unknown(const std::string& what, const std::string& name,
                          std::vector<std::string> known) {
  throw_unsupported(cat(what, " \"", name.substr(0, 60), "\" is not implemented; known are ",
                        join(known, ", "), did_you_mean(name, known)));
}

}  // namespace

const std::vector<const Family*>& families() {
  static const std::vector<const Family*> all = [] {
    std::vector<const Family*> found;
    for (const auto& family : family_table()) found.push_back(&family());
    return found;
  }();
  return all;
}

const Family& family_by_name(const std::string& name) {
  std::vector<std::string> known;
  for (const Family* family : families()) {
    if (family->name == name) return *family;
    known.push_back(family->name);
  }
  unknown("model family", name, known);
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
    unknown(cat(where, ": architecture"), first.get<std::string>(), known);
  }
  if (!config.contains("model_type") || !config["model_type"].is_string())
    throw_bad_input(cat(where, ": neither architectures nor model_type is there"));
  const auto type = config["model_type"].get<std::string>();
  for (const Family* family : families()) {
    if (holds(family->hf_model_types, type)) return *family;
    known.insert(known.end(), family->hf_model_types.begin(), family->hf_model_types.end());
  }
  unknown(cat(where, ": model_type"), type, known);
}

}  // namespace slmc
