// docs/cli.md and the completions are made from the options, and must follow them.
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <set>
#include <sstream>

#include "compress/cli/completions.h"
#include "compress/cli/global_options.h"
#include "compress/cli/options.h"
#include "compress/cli/program.h"
#include "tests/support/run_program.h"

namespace slmc {
namespace {

TEST(Docs, CliPageIsCurrent) {
  EXPECT_TRUE(test::read_file(SLMC_SOURCE_DIR "/docs/cli.md") == markdown_docs(all_commands(false)))
      << "docs/cli.md is not what the options say; run `build/slmc docs > docs/cli.md`";
}

/// Lines "slmc VERB ..." of a Markdown page's shell blocks, without comments and quoted words.
std::vector<std::string> shell_lines(const std::string& page) {
  std::vector<std::string> lines;
  std::istringstream text(test::read_file(page));
  bool shell = false;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("```")) shell = line == "```sh";
    const bool indented = line.starts_with("    slmc ");
    if (!indented && !(shell && line.starts_with("slmc "))) continue;
    line = line.substr(0, line.find(" #"));
    lines.push_back(std::regex_replace(line, std::regex("'[^']*'|\\[|\\]|\\|.*$"), ""));
  }
  return lines;
}

TEST(Docs, CommandsOfThePagesHaveTheirOptions) {
  const CommandList commands = all_commands(false);
  int seen = 0;
  for (const char* page :
       {"README.md", "docs/training.md", "docs/calibration.md", "docs/evaluation.md",
        "quantize/README.md", "prune/README.md", "recipes/README.md", "distill/README.md"}) {
    for (const std::string& line : shell_lines(std::string(SLMC_SOURCE_DIR "/") + page)) {
      std::istringstream words(line);
      std::string word, verb;
      words >> word >> verb;
      const auto command = std::find_if(commands.begin(), commands.end(),
                                        [&](const auto& each) { return each->name() == verb; });
      ASSERT_NE(command, commands.end()) << page << ": " << line;
      GlobalOptions global;
      std::set<std::string> flags;
      for (const auto& options : {collect_options(**command, false), collect_options(global, true)})
        for (const Option& option : options) {
          std::string name = option.info.name;
          std::replace(name.begin(), name.end(), '_', '-');
          flags.insert({"--" + name, "--no-" + name});
        }
      while (words >> word) {
        if (!word.starts_with("--")) continue;
        EXPECT_TRUE(flags.contains(word.substr(0, word.find('=')))) << page << ": " << line;
        ++seen;
      }
    }
  }
  EXPECT_GT(seen, 60);
}

TEST(Docs, EveryVerbHasHelpForEveryOption) {
  for (const auto& command : all_commands(false)) {
    EXPECT_FALSE(command->summary().empty()) << command->name();
    std::set<std::string> names;
    for (const Option& option : collect_options(*command, false)) {
      EXPECT_GT(option.info.help.size(), 4u) << command->name() << " " << option.info.name;
      EXPECT_TRUE(names.insert(option.info.name).second)
          << command->name() << " declares " << option.info.name << " twice";
    }
  }
}

TEST(Docs, EveryVerbBindsTogetherWithTheGlobalOptions) {
  for (const auto& command : all_commands(false)) {
    const test::ProgramResult result = test::run_slmc({std::string(command->name()), "--help"});
    EXPECT_EQ(result.exit_code, 0) << command->name() << ": " << result.err;
  }
}

TEST(Completions, OfferEveryVerb) {
  const CommandList commands = all_commands(false);
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(shell, commands);
    for (const auto& command : commands) {
      if (command->hidden()) continue;
      EXPECT_NE(script.find(command->name()), std::string::npos) << shell << " " << command->name();
    }
  }
}

TEST(Completions, BashCompletesVerbsOptionsAndChoices) {
  const test::ScratchFolder folder;
  folder.write("c.bash", completion_script("bash", all_commands(false)));
  const auto complete = [&](const std::string& words, int at) {
    return test::run_program("/bin/bash", {"-c", "source " + folder.file("c.bash") +
                                                     "; compopt() { :; }; COMP_WORDS=(" + words +
                                                     "); COMP_CWORD=" + std::to_string(at) +
                                                     "; _slmc; echo \"${COMPREPLY[*]}\""})
        .out;
  };
  EXPECT_EQ(complete("slmc compl", 1), "completions\n");
  EXPECT_EQ(complete("slmc eval --protoc", 2), "--protocol\n");
  EXPECT_EQ(complete("slmc eval --protocol ''", 3), "window llama.cpp\n");
}

}  // namespace
}  // namespace slmc
