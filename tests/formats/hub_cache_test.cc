#include "formats/hub_cache.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "formats/model.h"
#include "formats/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using test::error_of;

class HubCache : public testing::Test {
 protected:
  void TearDown() override { set_hub_cache(""); }
  test::TemporaryFolder folder_;
};

// The variables' order is huggingface_hub's.
TEST(HubCacheFolder, FollowsTheVariables) {
  EXPECT_EQ(hub_cache_folder("/a", "/b", "/c"), "/a");
  EXPECT_EQ(hub_cache_folder(nullptr, "/b", "/c"), "/b/hub");
  EXPECT_EQ(hub_cache_folder("", "", "/c"), "/c/.cache/huggingface/hub");
  EXPECT_EQ(hub_cache_folder(nullptr, nullptr, nullptr), "");
}

// Files of a snapshot are links into the blobs folder, as the hub's tools make them.
TEST_F(HubCache, OpensTheSnapshotThatMainNames) {
  const std::string model = folder_.file("models--acme--tiny");
  const std::string snapshot = model + "/snapshots/abc";
  fs::create_directories(model + "/snapshots/old");
  fs::create_directories(model + "/refs");
  fs::create_directories(model + "/blobs");
  test::write_tiny_model(snapshot, {.tokenizer = false});
  fs::rename(snapshot + "/model.safetensors", model + "/blobs/weights");
  fs::create_symlink("../../blobs/weights", snapshot + "/model.safetensors");
  test::spit(model + "/refs/main", "abc\n");
  set_hub_cache(folder_.file("."));
  EXPECT_EQ(Model::open("acme/tiny")->arch().family, "llama");
  fs::remove(model + "/refs/main");  // Two snapshots, and nothing says which.
  EXPECT_NE(error_of([] { Model::open("acme/tiny"); }).find("hf download acme/tiny"),
            std::string::npos);
  fs::remove(model + "/snapshots/old");
  EXPECT_EQ(Model::open("acme/tiny")->arch().layers, 2);
}

TEST_F(HubCache, TokenizersAreFoundByNameToo) {
  const std::string snapshot = folder_.file("models--acme--words") + "/snapshots/abc";
  fs::create_directories(snapshot);
  fs::copy_file(std::string(SLMC_FIXTURES) + "/tokenizer/sentence.json",
                snapshot + "/tokenizer.json");
  set_hub_cache(folder_.file("."));
  EXPECT_GT(Tokenizer::open("acme/words")->vocab_size(), 100);
  EXPECT_FALSE(tokenizer_assets("acme/words").tokenizer_json.empty());
}

TEST_F(HubCache, LookingDoesNotRefuse) {
  const std::string snapshot = folder_.file("models--acme--tiny") + "/snapshots/abc";
  fs::create_directories(snapshot);
  EXPECT_EQ(find_in_hub_cache("acme/tiny"), "");  // No cache is set.
  set_hub_cache(folder_.path());
  EXPECT_EQ(find_in_hub_cache("acme/tiny"), snapshot);
  for (const char* other : {"acme/huge", "acme/tiny.gguf", "./acme", ""})
    EXPECT_EQ(find_in_hub_cache(other), "") << other;
}

TEST_F(HubCache, OthersStayPaths) {
  set_hub_cache(folder_.file("none"));
  for (const std::string path : {"/no/where", "./m", "m.gguf", "a/b/c", "../m", "m/"})
    EXPECT_EQ(resolve_model_path(path), path);
  EXPECT_NE(error_of([] { resolve_model_path("gpt2"); }).find("hf download gpt2"),
            std::string::npos);
}

}  // namespace
}  // namespace slmc
