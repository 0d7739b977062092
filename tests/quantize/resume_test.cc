// A run that was killed and resumed writes the bytes of one that was not, without doing finished
// tensors twice.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
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
  void begin(const std::string&, uint64_t, const std::string&, uint64_t) override {}
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

/// Files whose names begin with `path`'s.
std::set<std::string> files_at(const std::string& path) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(path).parent_path())) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(fs::path(path).filename().string())) names.insert(name);
  }
  return names;
}

/// Types by measurement, then GPTQ. By size, or by divergence, which writes trial files on the way.
Report quantize_for_target(const std::string& folder, const std::string& output, bool by_loss,
                           Context context) {
  QuantizeStage stage = quantize_stage(folder + "/model", output, "");
  stage.options.method = "gptq";
  stage.options.calibration = {folder + "/text.txt"};
  stage.options.calibration_context = 64;
  stage.options.target_tokens = 256;
  (by_loss ? stage.options.target_kld : stage.options.target_bpw) = by_loss ? 0.004 : 5;
  return stage.run(stage.refine(stage.plan({}), context), context);
}

// The victim: killed so many microseconds after it began, wherever it is.
TEST(QuantizeResume, DISABLED_TargetVictim) {
  const char* folder = std::getenv("SLMC_TEST_FOLDER");
  if (folder == nullptr) GTEST_SKIP() << "only run by KilledAtRandomItMeetsTheTargetAlike";
  set_threads(std::atoi(std::getenv("SLMC_TEST_THREADS")));
  const std::chrono::microseconds life(std::atoi(std::getenv("SLMC_TEST_LIFE")));
  std::thread([life] {
    std::this_thread::sleep_for(life);
    kill(getpid(), SIGKILL);
  }).detach();
  quantize_for_target(folder, std::string(folder) + "/out.gguf",
                      std::getenv("SLMC_TEST_BY_LOSS") != nullptr, {});
}

TEST(QuantizeResume, KilledAtRandomItMeetsTheTargetAlike) {
  constexpr int kPoints = 20;
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 96, .dtype = DType::kBF16});
  spit(folder.file("text.txt"), random_text(6000));
  setenv("SLMC_TEST_FOLDER", folder.path().c_str(), 1);
  Random random(20);
  for (const bool by_loss : {false, true}) {
    const std::string clean = folder.file(by_loss ? "clean-loss.gguf" : "clean-size.gguf"),
                      output = folder.file("out.gguf");
    const auto start = std::chrono::steady_clock::now();
    const Report expected = quantize_for_target(folder.path(), clean, by_loss, {});
    const std::chrono::duration<double, std::micro> whole =
        std::chrono::steady_clock::now() - start;
    if (by_loss) setenv("SLMC_TEST_BY_LOSS", "1", 1);
    for (int point = 0; point < kPoints / 2; ++point) {
      double life = random.uniform() * whole.count();
      const std::string count = point % 2 == 0 ? "1" : "3";
      setenv("SLMC_TEST_THREADS", count.c_str(), 1);
      SCOPED_TRACE("point " + std::to_string(point) + ", " + std::to_string(life) +
                   " microseconds, threads " + count);
      for (bool killed = false; !killed; life *= 0.7) {  // It may be done before.
        for (const std::string& name : files_at(output)) fs::remove_all(folder.file(name));
        setenv("SLMC_TEST_LIFE", std::to_string(static_cast<int>(life)).c_str(), 1);
        const int status =
            spawn({"/proc/self/exe", "--gtest_filter=QuantizeResume.DISABLED_TargetVictim",
                   "--gtest_also_run_disabled_tests", "--gtest_brief=1"},
                  [](pid_t) {});
        killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        ASSERT_TRUE(killed || status == 0);
      }
      if (!fs::exists(output)) {
        const Report report = quantize_for_target(folder.path(), output, by_loss, {.resume = true});
        EXPECT_EQ(report.at("budget"), expected.at("budget"));
        EXPECT_EQ(files_at(output), std::set<std::string>{"out.gguf"});
      }  // Else it was whole already, and the kill came while its cost was measured.
      EXPECT_TRUE(slurp(output) == slurp(clean));
    }
  }
  for (const char* name : {"FOLDER", "THREADS", "LIFE", "BY_LOSS"})
    unsetenv(("SLMC_TEST_" + std::string(name)).c_str());
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
