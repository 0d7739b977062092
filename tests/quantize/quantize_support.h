// What the tests of the quantize stage share.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "formats/model.h"
#include "quantize/stage.h"
#include "tests/support/tiny_model.h"

namespace slmc::test {

inline QuantizeStage quantize_stage(const std::string& model, const std::string& output,
                                    const std::string& scheme) {
  QuantizeStage stage;
  stage.options.model = model;
  stage.options.output = output;
  stage.options.scheme = scheme;
  return stage;
}

/// Words of random letters.
inline std::string random_text(size_t characters, uint64_t seed = 1) {
  Random random(seed);
  std::string text;
  while (text.size() < characters) {
    const uint64_t length = 2 + random.below(8);
    for (uint64_t i = 0; i < length; ++i) text += static_cast<char>('a' + random.below(26));
    text += ' ';
  }
  return text;
}

/// Sets the method, with a little calibration text in `folder` where it needs some.
inline void set_method(QuantizeStage& stage, const Method& method, const TemporaryFolder& folder,
                       size_t characters = 800) {
  stage.options.method = method.name;
  if (!needs_calibration(method) && method.smooth == nullptr) return;
  stage.options.calibration = {folder.write("calibration.txt", random_text(characters))};
  stage.options.calibration_context = 64;
}

inline Report quantize(QuantizeStage& stage, Context context = {}) {
  return stage.run(stage.plan({}), context);
}

inline const PlanRow& row_of(const Plan& plan, const std::string& tensor) {
  for (const PlanRow& row : plan.rows) {
    if (row.tensor == tensor) return row;
  }
  throw std::runtime_error("no row for " + tensor);
}

/// Exit code and message of what `action` throws; {kOk, ""} if nothing.
template <typename Action>
std::pair<ExitCode, std::string> failure_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {ExitCode::kOk, ""};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace slmc::test
