// Any text as a config.json: an Error, or an architecture that writes a config.json saying the
// same.
#include <cstdlib>

#include "compress/core/error.h"
#include "formats/family.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const slmc::Json config =
        slmc::parse_json({reinterpret_cast<const char*>(data), size}, "config.json");
    const slmc::Family& family = slmc::family_for_config(config, "config.json");
    const slmc::Architecture arch = family.from_config(config, "config.json");
    const slmc::Architecture again =
        family.from_config(family.to_config(arch, config), "config.json");
    if (!slmc::architecture_difference(arch, again).empty()) std::abort();
    if (arch.layers < 1000) family.tensors(arch);
    if (arch.head_dim < 100000) slmc::rope_inverse_frequencies(arch.rope);
  } catch (const slmc::Error& error) {
    if (error.code() == slmc::ExitCode::kBug) throw;
  }
  return 0;
}
