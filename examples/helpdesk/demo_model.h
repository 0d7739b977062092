// One model of the demo: opened once, for its speed and for its answer to a message.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "compress/runtime/decoder.h"
#include "formats/model.h"

namespace slmc::helpdesk {

class DemoModel {
 public:
  /// In the arithmetic of deployment: int8 activations for quantized weights.
  explicit DemoModel(const std::string& path);

  uint64_t bytes() const { return model_->size_bytes(); }
  int64_t parameters() const { return model_->arch().parameters; }
  /// Greedy answer to a customer's message, without the end marker.
  std::string answer(const std::string& message) const;
  /// Tokens decoded a second, one sequence: the best of `repeats` runs of `tokens` tokens, so that
  /// other work on the machine counts least.
  double tokens_per_second(int repeats, int64_t tokens) const;

 private:
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace slmc::helpdesk
