// Weak stand-ins until formats/tokenizer.cc defines these; the linker prefers the real ones.
#include "compress/core/error.h"
#include "formats/tokenizer.h"

namespace slmc {

__attribute__((weak)) std::shared_ptr<const Tokenizer> Tokenizer::from_json(std::string_view, const Json&, const std::string& where) {
  throw_unsupported(where + ": tokenizers are not in this build");
}

__attribute__((weak)) Assets tokenizer_from_gguf(const GgufKeys&, const std::string&) { return {}; }
__attribute__((weak)) void tokenizer_to_gguf(const Assets&, const Architecture&, const std::string&, GgufKeys&) {}

}  // namespace slmc
