// Finds LibTorch and opens libslmc_torch.so. This file stays free of LibTorch: it only loads
// libraries by path, in the order of their dependence, so that the module needs no RUNPATH of the
// machine it was built on.
#include "compress/core/torch_module.h"

#include <dlfcn.h>
#include <stdio.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/text.h"

#ifndef SLMC_TORCH_RECORDED
#define SLMC_TORCH_RECORDED ""
#endif

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRemedy =
    "get it with 'pip install torch==2.13.0', or give the folder of another copy with --torch DIR "
    "(2.11 or later)";

struct Loaded {
  TorchModule* module = nullptr;
  std::string reason;    ///< Why not, when `module` is null.
  bool for_gpus = true;  ///< Whether CUDA's libraries are open, if there are any.
};

bool holds_libtorch(const std::string& folder) {
  std::error_code ignored;
  return !folder.empty() && fs::exists(fs::path(folder) / "lib" / "libtorch_cpu.so", ignored);
}

/// The folder of the `torch` that python3 would import; found without importing it, which would
/// take seconds.
std::string importable_torch() {
  FILE* pipe = popen(
      "python3 -c \"import importlib.util as u, os; s = u.find_spec('torch'); "
      "print(os.path.dirname(s.origin) if s and s.origin else '')\" "
      "2>/dev/null",
      "r");
  if (pipe == nullptr) return "";
  std::string text;
  char buffer[512];
  while (fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
  pclose(pipe);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

/// A folder that was asked for is the only one tried: another copy would be a silent fallback.
std::string find_libtorch(const std::string& asked, std::string& reason) {
  if (!asked.empty()) {
    if (holds_libtorch(asked)) return asked;
    reason = cat("no LibTorch in ", asked, " (looked for lib/libtorch_cpu.so); ", kRemedy);
    return "";
  }
  for (const std::string& folder : {std::string(SLMC_TORCH_RECORDED), importable_torch()})
    if (holds_libtorch(folder)) return folder;
  reason = cat("LibTorch was not found: ", kRemedy);
  return "";
}

std::string own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr)
    return "";
  std::error_code ignored;
  return fs::canonical(info.dli_fname, ignored).parent_path().string();
}

/// libslmc_torch.so beside libslmc.so or the program, or where an installation puts it.
std::string find_module() {
  std::error_code ignored;
  const std::string program = fs::canonical("/proc/self/exe", ignored).parent_path().string();
  for (const std::string& folder : {own_folder(), program, program + "/../lib/slmc"}) {
    const std::string path = folder + "/libslmc_torch.so";
    if (!folder.empty() && fs::exists(path, ignored)) return path;
  }
  return "";
}

/// Opens those of a LibTorch's libraries that it has, for all that come later. "" or why not.
std::string open_libraries(const std::string& folder, std::initializer_list<const char*> names) {
  std::error_code ignored;
  for (const char* name : names) {
    const std::string path = cat(folder, "/lib/", name);
    if (fs::exists(path, ignored) && dlopen(path.c_str(), RTLD_LAZY | RTLD_GLOBAL) == nullptr)
      return cat("LibTorch in ", folder, " cannot be loaded: ", dlerror(), "; ", kRemedy);
  }
  return "";
}

/// CUDA's libraries take 300 MB of memory by being there, so they are opened only for a GPU, and
/// before LibTorch has asked itself what devices it knows.
Loaded load(const std::string& asked, bool for_gpus) {
  Loaded result;
  const std::string module = find_module();
  if (module.empty()) {
    result.reason =
        "libslmc_torch.so is not beside the program: this slmc was built without LibTorch "
        "(SLMC_TORCH_MODULE=OFF)";
    return result;
  }
  const std::string folder = find_libtorch(asked, result.reason);
  if (folder.empty()) return result;
  result.reason = open_libraries(folder, {"libc10.so", "libtorch_cpu.so"});
  if (result.reason.empty() && for_gpus)
    result.reason = open_libraries(folder, {"libtorch_cuda.so"});
  if (!result.reason.empty()) return result;
  std::error_code ignored;
  result.for_gpus = for_gpus || !fs::exists(folder + "/lib/libtorch_cuda.so", ignored);
  void* handle = dlopen(module.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    result.reason = cat(module, " does not fit the LibTorch in ", folder, ": ", dlerror(),
                        "; rebuild slmc against it, or ", kRemedy);
    return result;
  }
  using Entry = TorchModule* (*)(uint32_t);
  const auto entry = reinterpret_cast<Entry>(dlsym(handle, "slmc_torch_module"));
  if (entry != nullptr) result.module = entry(kTorchModuleAbi);
  if (result.module == nullptr)
    result.reason = cat(module, " belongs to another version of slmc; reinstall both together");
  return result;
}

const Loaded& loaded(const Context& context) {
  static std::mutex mutex;
  static Loaded state;
  static std::string tried;
  static bool any = false;
  const std::lock_guard lock(mutex);
  // A success stays for the life of the process; after a failure another folder may be tried.
  if (state.module == nullptr && (!any || tried != context.torch_dir)) {
    state = load(context.torch_dir, !context.on_cpu());
    tried = context.torch_dir;
    any = true;
  }
  return state;
}

}  // namespace

TorchModule& torch_module(const Context& context) {
  const Loaded& state = loaded(context);
  if (state.module == nullptr) throw_unsupported(state.reason);
  if (!context.on_cpu() && !state.for_gpus)
    throw_unsupported(cat("--device ", context.device,
                          ": this process has opened LibTorch for the ",
                          "cpu alone; whatever uses the GPU must be the first to open it"));
  return *state.module;
}

std::string torch_unavailable_reason(const Context& context) {
  const Loaded& state = loaded(context);
  return state.module == nullptr ? state.reason : "";
}

void check_torch_device(const Context& context) {
  if (context.on_cpu()) return;
  if (const std::string missing = torch_unavailable_reason(context); !missing.empty())
    throw_unsupported(cat("--device ", context.device, ": ", missing));
  torch_module(context).check_device(context.device);
}

}  // namespace slmc
