// The stage behind `slmc train-tokenizer`: a byte-level BPE tokenizer trained on text, as a folder
// that Hugging Face libraries open.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {

struct TrainTokenizerOptions {
  std::vector<std::string> data;
  std::string output;  ///< Folder for tokenizer.json and tokenizer_config.json.
  int64_t vocab = 8192;
  std::string pattern = "llama-bpe";
  std::vector<std::string> special_token = {"<|begin_of_text|>", "<|end_of_text|>"};
  bool add_bos = true;
  int64_t min_frequency = 2;
  std::string chat_template;  ///< A file with a Jinja template.
};

std::unique_ptr<Stage> make_train_tokenizer_stage(TrainTokenizerOptions options = {});

}  // namespace slmc
