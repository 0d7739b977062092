#include "quantize/method.h"

#include <algorithm>
#include <map>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/runtime/decoder.h"

namespace slmc {

const std::vector<const Method& (*)()>&
method_table();  // Made by the build from quantize/methods/*.cc.

const std::vector<const Method*>& methods() {
  static const std::vector<const Method*> all = [] {
    std::vector<const Method*> list;
    for (auto* entry : method_table()) list.push_back(&entry());
    return list;
  }();
  return all;
}

bool needs_calibration(const Method& method) { return !method.needs.empty(); }

bool needs_statistic(const Method& method, Statistic statistic) {
  return std::find(method.needs.begin(), method.needs.end(), statistic) != method.needs.end();
}

bool smooth_needs(const Method& method, Statistic statistic) {
  return std::find(method.smooth_needs.begin(), method.smooth_needs.end(), statistic) !=
         method.smooth_needs.end();
}

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const Method* method : methods()) names.push_back(method->name);
  return names;
}

std::vector<std::string> smoother_names() {
  std::vector<std::string> names;
  for (const Method* method : methods()) {
    if (method->smooth != nullptr) names.push_back(method->name);
  }
  return names;
}

std::vector<float> tied_means(const std::vector<float>& values, const std::vector<int64_t>& tied) {
  if (tied.empty()) return values;
  std::map<int64_t, std::pair<double, double>> sums;  // Sum and count.
  for (size_t i = 0; i < values.size(); ++i) {
    sums[tied[i]].first += static_cast<double>(values[i]);
    sums[tied[i]].second += 1;
  }
  std::vector<float> means;
  for (size_t i = 0; i < values.size(); ++i) {
    const auto& [sum, count] = sums.at(tied[i]);
    means.push_back(static_cast<float>(sum / count));
  }
  return means;
}

const Method& method_by_name(const std::string& name) {
  for (const Method* method : methods()) {
    if (method->name == name) return *method;
  }
  throw_usage(cat("method '", name, "' is not known; expected one of ", join(method_names(), ", "),
                  did_you_mean(name, method_names())));
}

const EncodeKernels& encode_kernels() {
#if defined(__x86_64__)
  const std::string_view isa = isa_in_use();
  if (isa.starts_with("avx512")) return kAvx512EncodeKernels;
  if (isa.starts_with("avx")) return kAvx2EncodeKernels;
#endif
  return kScalarEncodeKernels;
}

void encode_row(const EncodeKernels& kernels, const BlockCodec& grid, const float* row,
                int64_t columns, std::byte* out) {
  if (grid.dtype == DType::kQ8_0) return kernels.encode_q8_0(row, columns, out, grid.encode);
  if (grid.dtype == DType::kQ4_0) return kernels.encode_q4_0(row, columns, out, grid.encode);
  grid.encode(row, columns, out);
}

void add_distortion(const EncodeKernels& kernels, const BlockCodec& grid, const float* row,
                    const std::byte* encoded, int64_t columns, float* scratch, Distortion* sum) {
  if (grid.dtype == DType::kQ8_0) return kernels.distortion_q8_0(row, encoded, columns, sum);
  if (grid.dtype == DType::kQ4_0) return kernels.distortion_q4_0(row, encoded, columns, sum);
  grid.decode(encoded, columns, scratch);
  kernels.distortion_f32(row, scratch, columns, sum);
}

}  // namespace slmc
