// A run that was killed and resumed writes the bytes of one that was not, without doing finished
// tensors twice.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <thread>

#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

namespace fs = std::filesystem;

/// Remembers which tensors were worked on; kills the process at the update of that number.
class Watcher : public Progress {
 public:
  explicit Watcher(int kill_at = -1) : kill_at_(kill_at) {}
  void begin(const std::string&, uint64_t, const std::string&) override {}
  void update(uint64_t, const std::string& detail) override {
    tensors.insert(detail);
    if (++updates == kill_at_) std::raise(SIGKILL);
  }
  void end(const std::string&) override {}
  void note(const std::string&) override {}
  std::set<std::string> tensors;
  int updates = 0;

 private:
  int kill_at_;
};

/// Runs `arguments` and returns its wait status; `watch(pid)` runs meanwhile.
template <typename Watch>
int spawn(const std::vector<std::string>& arguments, const Watch& watch) {
  std::vector<char*> pointers;
  for (const std::string& argument : arguments)
    pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    execv(pointers[0], pointers.data());
    _exit(127);
  }
  watch(child);
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

// The victim: this program again, with the folder and the update to die at in its environment.
TEST(QuantizeResume, DISABLED_Victim) {
  const char* folder = std::getenv("SLMC_TEST_FOLDER");
  if (folder == nullptr) GTEST_SKIP() << "only run by KilledAtAnyChunkItWritesTheSameBytes";
  set_threads(std::atoi(std::getenv("SLMC_TEST_THREADS")));
  Watcher watcher(std::atoi(std::getenv("SLMC_TEST_KILL_AT")));
  QuantizeStage stage =
      quantize_stage(std::string(folder) + "/model", std::string(folder) + "/out.gguf", "q4_0");
  quantize(stage, {.progress = &watcher});
}

TEST(QuantizeResume, KilledAtAnyChunkItWritesTheSameBytes) {
  TemporaryFolder folder;
  // The embedding takes three chunks, so that a kill can fall inside a tensor.
  write_tiny_model(
      folder.file("model"),
      {.family = "qwen2", .hidden = 256, .ffn = 512, .vocab = 9000, .dtype = DType::kBF16});
  QuantizeStage clean = quantize_stage(folder.file("model"), folder.file("clean.gguf"), "q4_0");
  Watcher all;
  const Report expected = quantize(clean, {.progress = &all});
  QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out.gguf"), "q4_0");
  for (const int count : {1, 3}) {
    for (const int kill_at : {1, 2, 4, all.updates / 2, all.updates}) {
      SCOPED_TRACE("threads " + std::to_string(count) + ", killed at chunk " +
                   std::to_string(kill_at));
      setenv("SLMC_TEST_FOLDER", folder.path().c_str(), 1);
      setenv("SLMC_TEST_THREADS", std::to_string(count).c_str(), 1);
      setenv("SLMC_TEST_KILL_AT", std::to_string(kill_at).c_str(), 1);
      const int status = spawn({"/proc/self/exe", "--gtest_filter=QuantizeResume.DISABLED_Victim",
                                "--gtest_also_run_disabled_tests", "--gtest_brief=1"},
                               [](pid_t) {});
      unsetenv("SLMC_TEST_FOLDER");
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
      ASSERT_FALSE(fs::exists(folder.file("out.gguf")));
      ASSERT_TRUE(fs::exists(folder.file("out.gguf.partial")));
      Watcher rest;
      const Report report = quantize(stage, {.resume = true, .progress = &rest});
      EXPECT_TRUE(slurp(folder.file("out.gguf")) == slurp(folder.file("clean.gguf")));
      EXPECT_EQ(report.at("tensors"), expected.at("tensors"))
          << "figures of tensors done before the kill are measured from the file";
      if (kill_at > 3) {
        EXPECT_LT(rest.updates, all.updates) << "finished tensors are not done twice";
      }
      if (kill_at > 3) {
        EXPECT_FALSE(rest.tensors.contains("token_embd.weight"));
      }
      EXPECT_FALSE(fs::exists(folder.file("out.gguf.partial")));
      fs::remove(folder.file("out.gguf"));
    }
  }
}

TEST(QuantizeResume, TheProgramResumesAfterKill9) {
  TemporaryFolder folder;
  write_tiny_model(
      folder.file("model"),
      {.layers = 12, .hidden = 512, .ffn = 2048, .heads = 8, .vocab = 4000, .dtype = DType::kBF16});
  const std::vector<std::string> base = {SLMC_PROGRAM, "quantize", folder.file("model"),
                                         "--scheme",   "q8_0",     "-q",
                                         "--check",    "bytes",    "-o"};
  const auto with = [&](const std::string& output, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = base;
    arguments.push_back(output);
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  ASSERT_EQ(spawn(with(folder.file("clean.gguf"), {}), [](pid_t) {}), 0);
  const std::string journal = folder.file("out.gguf") + ".partial.journal";
  bool killed = false;
  for (int attempt = 0; attempt < 8 && !killed; ++attempt) {
    fs::remove(folder.file("out.gguf"));
    const int status = spawn(with(folder.file("out.gguf"), {"--threads", "1"}), [&](pid_t child) {
      for (int i = 0; i < 20000; ++i) {
        std::error_code error;
        const auto size = fs::file_size(journal, error);
        if (!error && size > 800) break;  // Some tensors are done.
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
      kill(child, SIGKILL);
    });
    killed = WIFSIGNALED(status) && fs::exists(journal);
  }
  ASSERT_TRUE(killed) << "the program was always done before the signal";
  EXPECT_FALSE(fs::exists(folder.file("out.gguf")));
  ASSERT_EQ(spawn(with(folder.file("out.gguf"), {"--resume"}), [](pid_t) {}), 0);
  EXPECT_TRUE(slurp(folder.file("out.gguf")) == slurp(folder.file("clean.gguf")));
  EXPECT_FALSE(fs::exists(journal));
}

}  // namespace
}  // namespace slmc::test
