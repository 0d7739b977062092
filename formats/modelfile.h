// The text of an Ollama Modelfile, which tells Ollama how to talk to a GGUF: the chat format as a
// Go template, stops, context.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace slmc {

struct ModelfileOptions {
  std::string gguf{};                ///< Path as written after FROM; a bare file name gets "./".
  std::string chat_template{};       ///< The model's Jinja template; empty: prompts pass unchanged.
  int64_t context = 0;               ///< num_ctx; 0: Ollama's default.
  double temperature = -1;           ///< Below 0: Ollama's default.
  std::vector<std::string> stops{};  ///< Beyond the chat format's.
};

/// Throws Error(kUnsupported) if `chat_template` is given and is not a known format
/// (formats/chat.h).
std::string modelfile_text(const ModelfileOptions& options);

}  // namespace slmc
