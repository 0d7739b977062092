// The program as a stranger meets it: help, mistakes, exit codes, and where each text goes.
#include <gtest/gtest.h>

#include "compress/core/json.h"
#include "tests/support/run_program.h"

namespace slmc {
namespace {

using test::ProgramResult;
using test::run_slmc;
using test::ScratchFolder;

size_t lines(const std::string& text) {
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

/// A refused command line: nothing on stdout, one line on stderr, the right code.
void expect_refused(const ProgramResult& result, int code, const std::string& fragment) {
  EXPECT_EQ(result.exit_code, code) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(lines(result.err), 1u) << result.err;
  EXPECT_EQ(result.err.rfind("slmc: ", 0), 0u) << result.err;
  EXPECT_NE(result.err.find(fragment), std::string::npos) << result.err;
}

TEST(Program, SaysWhatItCanDoWithoutArguments) {
  const ProgramResult result = run_slmc({});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  for (const char* word : {"Usage:", "eval", "run", "completions", "Example:"})
    EXPECT_NE(result.out.find(word), std::string::npos) << word;
  EXPECT_EQ(run_slmc({"--help"}).out, result.out);
  EXPECT_EQ(run_slmc({"help"}).out, result.out);
}

TEST(Program, HelpOfAVerbListsItsOptionsAndTheGlobalOnes) {
  const ProgramResult result = run_slmc({"eval", "--help"});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* word : {"Usage: slmc eval MODEL", "--against", "--threads", "--json FILE|-",
                           "--dry-run[=measured]"}) {
    EXPECT_NE(result.out.find(word), std::string::npos) << word;
  }
  EXPECT_EQ(run_slmc({"help", "eval"}).out, result.out);
  EXPECT_EQ(run_slmc({"--threads", "2", "eval", "-h"}).out, result.out);
}

TEST(Program, PrintsItsVersion) {
  const ProgramResult result = run_slmc({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out.rfind("slmc 0.", 0), 0u) << result.out;
}

TEST(Program, NamesTheNearestVerb) {
  expect_refused(run_slmc({"evl"}), 2, "unknown verb 'evl'; did you mean 'eval'?");
  expect_refused(run_slmc({"frobnicate"}), 2, "unknown verb 'frobnicate' (slmc --help");
}

TEST(Program, NamesTheNearestOption) {
  expect_refused(run_slmc({"eval", "x", "--protocl", "window"}), 2,
                 "unknown option --protocl; did you mean --protocol?");
  expect_refused(run_slmc({"eval", "x", "--protocl=window"}), 2, "did you mean --protocol?");
  expect_refused(run_slmc({"--treads", "2"}), 2, "did you mean --threads?");
  expect_refused(run_slmc({"eval", "x", "-Z"}), 2, "unknown option -Z");
}

TEST(Program, SaysWhatAValueMustBe) {
  expect_refused(run_slmc({"eval", "x", "--threads", "many"}), 2,
                 "--threads: expected a whole number from 0 to 4096, found 'many'");
  expect_refused(run_slmc({"eval", "x", "--threads", "-1"}), 2, "found '-1'");
  expect_refused(run_slmc({"eval", "x", "--threads", "99999999999999999999"}), 2, "whole number");
  expect_refused(run_slmc({"eval", "x", "--protocol", "windw"}), 2,
                 "expected one of window, llama.cpp, found 'windw'; did you mean 'window'?");
  expect_refused(run_slmc({"eval", "x", "--device", "gpu"}), 2, "expected cpu, cuda or cuda:N");
  expect_refused(run_slmc({"eval", "x", "--max-ram", "much"}), 2, "not a size");
  expect_refused(run_slmc({"eval", "x", "--dry-run=soon"}), 2, "expected one of plan, measured");
}

TEST(Program, OnlyVerbsThatUseADeviceTakeOne) {
  const std::string reason = "computes on the cpu only; leave it out";
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"eval", "x"},
        {"convert", "x", "-o", "y"},
        {"capture", "x", "--data", "d", "-o", "y"},
        {"logits", "x", "--ids", "1", "-o", "y"},
        {"quantize", "x", "-o", "y.gguf", "--scheme", "q8_0"}}) {
    for (const std::string device : {"cuda", "cuda:1"}) {
      std::vector<std::string> words = verb;
      words.insert(words.end(), {"--device", device, "--dry-run"});
      expect_refused(run_slmc(words), 4, "--device " + device + ": " + verb[0] + " " + reason);
    }
  }
  expect_refused(run_slmc({"quantize", "x", "-o", "y.gguf", "--scheme", "q8_0", "--method", "gptq",
                           "--calibration", "t.txt", "--backend", "runtime", "--device", "cuda"}),
                 2, "--backend runtime computes on the cpu only");
  expect_refused(run_slmc({"imatrix", "x", "-o", "y.gguf", "--calibration", "t.txt",
                           "--forward-dtype", "bf16"}),
                 2, "--forward-dtype bf16 needs --backend torch");
  expect_refused(
      run_slmc({"quantize", "x", "-o", "y.gguf", "--scheme", "q8_0", "--backend", "torch"}), 2,
      "give --calibration FILE");
}

TEST(Program, SaysWhatNeedsLibTorch) {
  const ScratchFolder folder;
  const std::string text = folder.write("t.txt", "some text");
  std::vector<std::string> words = {"quantize", "x",        "-o",   "y.gguf",        "--scheme",
                                    "q8_0",     "--method", "gptq", "--calibration", text};
  words.insert(words.end(), {"--torch", folder.path()});
  for (const std::pair<std::string, std::string> asked :
       {std::pair{"--backend", "torch"}, {"--device", "cuda"}}) {
    std::vector<std::string> with = words;
    with.insert(with.end(), {asked.first, asked.second});
    expect_refused(run_slmc(with), 4, asked.first + " " + asked.second + ": ");
  }
}

TEST(Program, SaysWhatIsMissing) {
  expect_refused(run_slmc({"eval"}), 2, "MODEL is missing");
  expect_refused(run_slmc({"eval", "x", "--context"}), 2, "--context needs a value");
  expect_refused(run_slmc({"eval", "x", "--context", "--json", "-"}), 2,
                 "--context needs a value, found the option --json");
}

TEST(Program, RefusesWhatIsTooMuch) {
  expect_refused(run_slmc({"eval", "one", "two"}), 2, "unexpected argument 'two'");
  expect_refused(run_slmc({"eval", "x", "--context", "1", "--context", "2"}), 2,
                 "--context is given twice ('1' and '2')");
  expect_refused(run_slmc({"eval", "x", "-q", "-v"}), 2, "--quiet and --verbose");
}

TEST(Program, WrongPathsAreBadInput) {
  expect_refused(run_slmc({"eval", "/nonexistent/model", "--text", "x"}), 3, "/nonexistent/model");
  const ScratchFolder folder;
  expect_refused(run_slmc({"eval", folder.path(), "--text", "x"}), 3, folder.path());
}

TEST(Program, RefusesAJsonPathWhoseFolderIsMissingBeforeTheWork) {
  expect_refused(run_slmc({"completions", "bash", "--json", "/nonexistent/folder/x.json"}), 2,
                 "/nonexistent/folder");
}

TEST(Program, TheReportIsNotWrittenOverTheResult) {
  const ScratchFolder folder;
  const std::string out = folder.file("out.gguf");
  expect_refused(run_slmc({"convert", "nonesuch", "-o", out, "--json", out}), 2,
                 "is what the result is written to");
  expect_refused(run_slmc({"convert", "nonesuch", "-o", out, "--json", folder.path()}), 2,
                 "is a folder");
}

TEST(Program, JsonOnStdoutStandsAlone) {
  const ProgramResult result = run_slmc({"completions", "bash", "--json", "-"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(Json::parse(result.out)["shell"], "bash");
  EXPECT_EQ(result.out.front(), '{');
}

TEST(Program, JsonInAFileLeavesPeoplesTextOnStdout) {
  const ScratchFolder folder;
  const ProgramResult result = run_slmc({"completions", "fish", "--json", folder.file("r.json")});
  EXPECT_EQ(result.out.rfind("# slmc completions for fish", 0), 0u);
  EXPECT_EQ(Json::parse(test::read_file(folder.file("r.json")))["shell"], "fish");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"r.json"});
}

TEST(Program, DryRunOfAVerbWithoutAPlanShowsItsOptions) {
  const ProgramResult result = run_slmc({"completions", "bash", "--dry-run"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.out.find("shell: \"bash\""), std::string::npos);
}

TEST(Program, ForcedInstructionSetMustExist) {
  expect_refused(run_slmc({"completions", "bash"}, {"SLMC_ISA=abacus"}), 2, "abacus");
  EXPECT_EQ(run_slmc({"completions", "bash"}, {"SLMC_ISA=scalar"}).exit_code, 0);
}

TEST(Program, ThreadsFromTheEnvironmentAreChecked) {
  expect_refused(run_slmc({"completions", "bash"}, {"SLMC_THREADS=lots"}), 2,
                 "SLMC_THREADS: expected a whole number");
}

TEST(Program, FullDiskUnderStdoutIsAResourceError) {
  const ProgramResult result = test::run_program(
      "/bin/sh", {"-c", std::string(SLMC_PROGRAM) + " completions bash > /dev/full"});
  EXPECT_EQ(result.exit_code, 5) << result.err;
}

}  // namespace
}  // namespace slmc
