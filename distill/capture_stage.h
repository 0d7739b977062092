// The stage behind `slmc capture`: a teacher reads the training text once, and what it says is kept
// (teacher_cache.h). The torch-free runtime runs it, so any checkpoint that slmc reads will do, a
// quantized GGUF too.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"

namespace slmc {

struct CaptureOptions {
  std::string teacher;
  std::vector<std::string> data;
  std::string output;
  int64_t top_k = 32;  ///< Tokens kept a position; 0: all of the vocabulary.
  std::vector<std::string> temperatures = {"2"};  ///< At which a student can be trained, besides 1.
  std::string values = "f16";
  int64_t context = 256;
  bool isolate_documents = false;
  bool eos = true;
  std::string hidden;              ///< "all" or "1,3": blocks whose outputs are kept too.
  int64_t max_tokens = 0;          ///< 0: all of the text.
  int64_t shard_tokens = 1 << 20;  ///< Tokens in one file, and at most lost by a kill.
};

std::unique_ptr<Stage> make_capture_stage(CaptureOptions options = {});

}  // namespace slmc
