// Ctrl-C during long work: exit code 130, one line, and nothing under the output's name.
#include <gtest/gtest.h>

#include <csignal>

#include "compress/core/random.h"
#include "tests/support/run_program.h"

namespace slmc {
namespace {

/// Text whose words never repeat, so that a tokenizer learns from it for long.
std::string endless_text() {
  Random random(7);
  std::string text;
  while (text.size() < 4u << 20) {
    for (uint64_t i = 2 + random.below(9); i > 0; --i)
      text += static_cast<char>('a' + random.below(26));
    text += ' ';
  }
  return text;
}

TEST(Interrupt, LeavesNothingUnderTheOutputsName) {
  const test::ScratchFolder folder;
  const std::string data = folder.write("data.txt", endless_text());
  for (const int signal : {SIGINT, SIGTERM}) {
    const test::ProgramResult result =
        test::run_and_signal(SLMC_PROGRAM,
                             {"train-tokenizer", "--data", data, "--vocab", "200000", "-o",
                              folder.file("out"), "--json", folder.file("r.json")},
                             folder.file("out.partial"), signal);
    EXPECT_EQ(result.exit_code, 130) << result.err;
    EXPECT_NE(result.err.find("slmc: interrupted\n"), std::string::npos) << result.err;
    EXPECT_EQ(folder.names(), std::vector<std::string>{"data.txt"});
  }
}

TEST(Interrupt, ARecipeIsResumableAfterwards) {
  const test::ScratchFolder folder;
  const std::string data = folder.write("data.txt", endless_text());
  const std::string recipe = folder.write(
      "r.yaml", "stages:\n  - train-tokenizer: {data: data.txt, vocab: 200000, output: out}\n");
  const std::vector<std::string> arguments = {"run", recipe, "-o", folder.file("results")};
  EXPECT_EQ(
      test::run_and_signal(SLMC_PROGRAM, arguments, folder.file("results/out.partial"), SIGINT)
          .exit_code,
      130);
  EXPECT_EQ(test::run_slmc(arguments).exit_code, 2);
  std::vector<std::string> resumed = arguments;
  resumed.insert(resumed.end(), {"--resume", "--set", "train-tokenizer.vocab=300"});
  const test::ProgramResult result = test::run_slmc(resumed);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("r: passed"), std::string::npos) << result.out;
}

}  // namespace
}  // namespace slmc
