// The tiny transformers checkpoints of tests/fixtures/models and their golden float32 logits (made
// by generate.py there).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/json.h"
#include "formats/family.h"
#include "formats/model.h"

namespace slmc::testing {

constexpr double kLogitTolerance = 1e-3;

/// One configuration over a fixture's weights: its own, or a mutant with one key altered.
struct GoldenCase {
  std::string name;  ///< "llama_tied" or "llama_tied/rope_theta".
  Json config;
  std::vector<std::vector<double>> logits;  ///< [position][vocab]
};

struct GoldenModel {
  std::string path;  ///< The Hugging Face folder.
  std::vector<int32_t> prompt;
  std::vector<int64_t> positions;  ///< Where logits are given.
  GoldenCase base;
  std::vector<GoldenCase> mutants;
};

/// Fixtures of decoders ("positions") or of encoders ("lengths"), whatever the folder holds.
inline std::vector<std::string> golden_names(const char* key = "positions") {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(SLMC_FIXTURES) + "/models")) {
    const std::filesystem::path golden = entry.path() / "golden.json";
    if (std::filesystem::exists(golden) && read_json(golden.string()).contains(key))
      names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// The formula of generate.py.
inline std::vector<int32_t> golden_prompt(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    const auto hashed = static_cast<uint32_t>(static_cast<uint64_t>(i) * 2654435761u);
    ids.push_back(static_cast<int32_t>((hashed >> 8) % static_cast<uint32_t>(vocab)));
  }
  return ids;
}

inline GoldenModel load_golden(const std::string& name) {
  GoldenModel model;
  model.path = std::string(SLMC_FIXTURES) + "/models/" + name;
  const Json golden = read_json(model.path + "/golden.json");
  model.base = {name, read_json(model.path + "/config.json"),
                golden["logits"].get<std::vector<std::vector<double>>>()};
  model.prompt = golden_prompt(golden["tokens"], model.base.config["vocab_size"]);
  model.positions = golden["positions"].get<std::vector<int64_t>>();
  for (const Json& mutant : golden["mutants"]) {
    model.mutants.push_back({name + "/" + mutant["name"].get<std::string>(), mutant["config"],
                             mutant["logits"].get<std::vector<std::vector<double>>>()});
  }
  return model;
}

/// An encoder's fixture: what its head gives for prompts of several lengths.
struct GoldenEncoder {
  std::string path;
  std::vector<std::vector<int32_t>> prompts;
  GoldenCase base;  ///< logits: one row a prompt.
  std::vector<GoldenCase> mutants;
};

inline GoldenEncoder load_golden_encoder(const std::string& name) {
  GoldenEncoder encoder;
  encoder.path = std::string(SLMC_FIXTURES) + "/models/" + name;
  const Json golden = read_json(encoder.path + "/golden.json");
  using Rows = std::vector<std::vector<double>>;
  encoder.base = {name, read_json(encoder.path + "/config.json"), golden["outputs"].get<Rows>()};
  for (const Json& length : golden["lengths"])
    encoder.prompts.push_back(golden_prompt(length, encoder.base.config["vocab_size"]));
  for (const Json& mutant : golden["mutants"]) {
    encoder.mutants.push_back({name + "/" + mutant["name"].get<std::string>(), mutant["config"],
                               mutant["outputs"].get<Rows>()});
  }
  return encoder;
}

/// A pair of texts of ten ids each, and what transformers' classifiers give for it.
struct GoldenPairs {
  std::vector<int32_t> ids = golden_prompt(20, 96), types = std::vector<int32_t>(20, 0);
  Json logits = read_json(std::string(SLMC_FIXTURES) + "/encoders/pairs.json")["logits"];
  GoldenPairs() { std::fill(types.begin() + 10, types.end(), 1); }

  /// The outputs of model `name`, which those of the ids without their segments differ from.
  void expect(const std::string& name, const std::vector<float>& given,
              const std::vector<float>& alike) const {
    const Json& expected = logits.at(name);
    ASSERT_EQ(given.size(), expected.size()) << name;
    double moved = 0;
    for (size_t i = 0; i < given.size(); ++i) {
      EXPECT_NEAR(given[i], expected[i].get<double>(), 1e-4) << name;
      moved = std::max(moved, std::abs(static_cast<double>(given[i] - alike[i])));
    }
    EXPECT_GT(moved, 0.1) << name;
  }
};

/// The largest difference of an encoder's outputs from the golden ones, of which the last row of a
/// masked head's counts.
template <typename Encode>
double encoder_difference(const GoldenEncoder& encoder, const GoldenCase& golden,
                          const Encode& encode) {
  double largest = 0;
  for (size_t i = 0; i < encoder.prompts.size(); ++i) {
    const std::vector<float> values = encode(encoder.prompts[i]);
    const std::vector<double>& expected = golden.logits[i];
    const float* last = values.data() + values.size() - expected.size();
    for (size_t k = 0; k < expected.size(); ++k) {
      const double apart = std::abs(static_cast<double>(last[k]) - expected[k]);
      if (!(apart <= largest)) largest = apart;
    }
  }
  return largest;
}

/// A checkpoint's tensors under another configuration.
class ReconfiguredWeights : public WeightSource {
 public:
  ReconfiguredWeights(std::shared_ptr<const Model> model, const Json& config)
      : model_(std::move(model)),
        arch_(family_for_config(config, "golden").from_config(config, "golden")) {}
  const Architecture& arch() const override { return arch_; }
  bool has(const std::string& name) const override { return model_->has(name); }
  TensorView view(const std::string& name) const override { return model_->view(name); }

 private:
  std::shared_ptr<const Model> model_;
  Architecture arch_;
};

/// How far `logits` [tokens][vocab] are from the golden ones at the golden positions, and whether
/// the best token is the same everywhere.
struct GoldenDifference {
  double largest = 0;
  bool same_best = true;
};
inline GoldenDifference compare_golden(const GoldenModel& model, const GoldenCase& golden,
                                       const float* logits) {
  GoldenDifference difference;
  for (size_t i = 0; i < model.positions.size(); ++i) {
    const std::vector<double>& expected = golden.logits[i];
    const float* row = logits + model.positions[i] * static_cast<int64_t>(expected.size());
    size_t best = 0, best_expected = 0;
    for (size_t id = 0; id < expected.size(); ++id) {
      const double apart = std::abs(static_cast<double>(row[id]) - expected[id]);
      if (!(apart <= difference.largest)) difference.largest = apart;  // A NaN counts as far.
      if (row[id] > row[best]) best = id;
      if (expected[id] > expected[best_expected]) best_expected = id;
    }
    difference.same_best = difference.same_best && best == best_expected;
  }
  return difference;
}

}  // namespace slmc::testing
