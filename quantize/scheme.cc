#include "quantize/scheme.h"

#include "compress/core/error.h"
#include "compress/core/text.h"

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

bool is_output_head(const TensorInfo& tensor, const Architecture& arch) {
  return tensor.name == "output.weight" || (arch.tied && tensor.name == "token_embd.weight");
}

TypeChoice fitting_or_f16(DType wanted, const std::string& reason, const TensorInfo& tensor) {
  const int64_t columns = tensor.shape.back();
  if (columns % dtype_block(wanted) == 0) return {wanted, reason, false};
  return {DType::kF16,
          cat("rows of ", columns, " do not divide by ", dtype_block(wanted), ", so not ",
              dtype_name(wanted)),
          true};
}

}  // namespace slmc
