#include "compress/runtime/isa.h"

#include <atomic>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/runtime/decoder.h"

namespace slmc {
namespace {

std::atomic<const kernels::Set*> chosen{nullptr};
std::atomic<bool> used{false};

const kernels::Set* find_set(std::string_view name) {
  for (const kernels::Set* set : available_sets()) {
    if (set->name == name) return set;
  }
  return nullptr;
}

}  // namespace

std::vector<const kernels::Set*> available_sets() {
  std::vector<const kernels::Set*> sets = {&kernels::scalar_set()};
#if defined(SLMC_KERNELS_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    sets.push_back(&kernels::avx2_set());
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      sets.push_back(&kernels::avx512_set());
      if (__builtin_cpu_supports("avx512vnni")) sets.push_back(&kernels::avx512vnni_set());
    }
  }
#elif defined(SLMC_KERNELS_NEON)
  sets.push_back(&kernels::neon_set());
#endif
  return sets;
}

const kernels::Set& kernel_set() {
  used.store(true, std::memory_order_relaxed);
  const kernels::Set* set = chosen.load(std::memory_order_acquire);
  if (!set) {
    set = available_sets().back();
    chosen.store(set, std::memory_order_release);
  }
  return *set;
}

void override_set(const kernels::Set& set) { chosen.store(&set, std::memory_order_release); }

std::string_view isa_in_use() { return kernel_set().name; }

void force_isa(std::string_view name) {
  const std::vector<std::string> known = {"scalar", "avx2", "avx512", "avx512vnni", "neon"};
  const kernels::Set* set = find_set(name);
  if (!set) {
    std::vector<std::string> names;
    for (const kernels::Set* each : available_sets()) names.emplace_back(each->name);
    bool is_known = false;
    for (const std::string& each : known) is_known = is_known || each == name;
    throw_usage(cat("SLMC_ISA: expected one of ", join(names, ", "), " on this processor, found '",
                    name, "'", is_known ? ", which it lacks" : did_you_mean(name, known)));
  }
  if (used.load(std::memory_order_relaxed) && chosen.load(std::memory_order_acquire) != set) {
    throw_usage(
        cat("SLMC_ISA: '", name, "' was asked for after '", isa_in_use(), "' had been used"));
  }
  chosen.store(set, std::memory_order_release);
}

}  // namespace slmc
