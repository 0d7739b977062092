#include "tests/support/training_run.h"

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "compress/core/random.h"

namespace slmc::test {

std::string text_by_rule(int words, int line) {
  const char* const vocabulary[] = {"the ", "cat ", "saw ", "a ", "dog ", "and ", "then ", "ran. "};
  std::string out;
  Random random(1);
  uint64_t at = 0;
  for (int i = 0; i < words; ++i) {
    at = (at * 3 + 1 + random.below(2)) % 8;
    out += vocabulary[at];
    if (line > 0 && (i + 1) % line == 0) out += "\n";
  }
  return out;
}

std::vector<std::string> command_line(std::vector<std::string> head, Options options,
                                      const Options& changes) {
  for (const auto& [name, value] : changes) options[name] = value;
  for (const auto& [name, value] : options) {
    head.push_back(name);
    if (!value.empty()) head.push_back(value);
  }
  return head;
}

std::vector<std::string> distill_command(const ScratchFolder& folder, const std::string& out,
                                         const Options& changes) {
  const Options usual{{"--teacher", folder.file("teacher")},
                      {"--student", "layers:2"},
                      {"--data", folder.file("text.txt")},
                      {"-o", folder.file(out)},
                      {"--context", "32"},
                      {"--batch", "8"},
                      {"--steps", "24"},
                      {"--seed", "5"},
                      {"--save-dtype", "f32"},
                      {"-q", ""}};
  return command_line({"distill"}, usual, changes);
}

ProgramResult kill_and_resume(std::vector<std::string> arguments, const std::string& output) {
  arguments.insert(arguments.end(), {"--checkpoint-every", "3"});
  const auto first = run_and_signal(SLMC_PROGRAM, arguments,
                                    output + ".training.partial/state.safetensors", SIGKILL);
  EXPECT_EQ(first.exit_code, 128 + SIGKILL) << first.err;
  EXPECT_FALSE(std::filesystem::exists(output));
  arguments.push_back("--resume");
  const auto second = run_slmc(arguments);
  EXPECT_EQ(second.exit_code, 0) << second.err;
  EXPECT_FALSE(std::filesystem::exists(output + ".training.partial"));
  return second;
}

}  // namespace slmc::test
