// Plans that are stored and run later, and what of a source's files comes out.
#include <gtest/gtest.h>

#include <filesystem>

#include "compress/core/json.h"
#include "tests/support/run_program.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::run_slmc;

class StoredPlan : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(one_, {.layers = 4});
    test::write_tiny_model(other_, {.layers = 4});
  }
  test::TemporaryFolder folder_;
  const std::string one_ = folder_.file("one"), other_ = folder_.file("other"),
                    out_ = folder_.file("out"), plan_ = folder_.file("plan.json");
};

TEST_F(StoredPlan, IsOfItsModelAndOptions) {
  const std::vector<std::string> prune = {"prune", one_, "-o", out_, "--layers", "2"};
  const auto with = [](std::vector<std::string> arguments, const std::vector<std::string>& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_slmc(arguments);
  };
  ASSERT_EQ(with(prune, {"--dry-run", "--json", plan_}).exit_code, 0);
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& part) {
    const auto result = with(arguments, {"--plan", plan_});
    EXPECT_EQ(result.exit_code, 3) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    EXPECT_FALSE(std::filesystem::exists(out_));
  };
  refused({"prune", other_, "-o", out_, "--layers", "2"}, "a plan with model");
  refused({"prune", one_, "-o", out_, "--sparsity", "0.5"}, "a plan");
  refused({"prune", one_, "-o", out_, "--layers", "3"}, "a plan");
  const auto done = with(prune, {"--plan", plan_});
  EXPECT_EQ(done.exit_code, 0) << done.err;
}

// A template in a file of its own goes along unless tokenizer_config.json has the same.
TEST_F(StoredPlan, ChatTemplatesAreNotLost) {
  for (const Json& in_config : {Json(), Json("old")}) {
    const Json config = {{"chat_template", in_config}};
    test::spit(one_ + "/tokenizer_config.json", config.dump());
    test::spit(one_ + "/chat_template.jinja", "new");
    const auto result = run_slmc({"convert", one_, "-o", out_, "--force"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(test::read_file(out_ + "/chat_template.jinja"), "new") << in_config;
  }
}

TEST_F(StoredPlan, AnotherSourceIsNotGoneOnWith) {
  const auto convert = [&](const std::string& model, const std::string& output) {
    return run_slmc({"convert", model, "-o", output, "--dtype", "f16", "--resume"});
  };
  // A run that ends at the last tensor, of a model with the same names and shapes.
  const std::string weights = other_ + "/model.safetensors";
  test::write_tiny_model(other_, {.layers = 4, .seed = 2});
  std::string bytes = test::read_file(weights);
  bytes.replace(bytes.size() - 4, 4, std::string("\x00\x00\xc0\x7f", 4));  // NaN
  test::spit(weights, bytes);
  EXPECT_EQ(convert(other_, out_).exit_code, 3);
  ASSERT_TRUE(std::filesystem::exists(out_ + ".partial"));
  ASSERT_EQ(convert(one_, out_).exit_code, 0);
  ASSERT_EQ(convert(one_, folder_.file("fresh")).exit_code, 0);
  EXPECT_TRUE(test::read_file(out_ + "/model.safetensors") ==
              test::read_file(folder_.file("fresh") + "/model.safetensors"));
}

}  // namespace
}  // namespace slmc
