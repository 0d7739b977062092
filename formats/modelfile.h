// The text of an Ollama Modelfile, which tells Ollama how to talk to a GGUF: the chat template as a
// Go template, stops, context.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/chat/chat.h"

namespace slmc {

struct ModelfileOptions {
  std::string gguf{};                ///< Path as written after FROM; a bare file name gets "./".
  ChatTemplate chat_template{};      ///< The model's template; none: prompts pass unchanged.
  int64_t context = 0;               ///< num_ctx; 0: Ollama's default.
  double temperature = -1;           ///< Below 0: Ollama's default.
  std::vector<std::string> stops{};  ///< Beyond the chat template's.
};

/// Throws Error(kUnsupported) if the template cannot be written as a Go template
/// (formats/chat/turns.h).
std::string modelfile_text(const ModelfileOptions& options);

}  // namespace slmc
