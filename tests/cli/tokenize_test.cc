// `slmc tokenize` and `slmc train-tokenizer` as programs.
#include <gtest/gtest.h>

#include "compress/core/json.h"
#include "compress/core/mapped_file.h"
#include "tests/support/run_program.h"

namespace slmc {
namespace {

using test::run_slmc;
using test::ScratchFolder;

std::string fixture(const std::string& name) {
  return std::string(SLMC_FIXTURES "/tokenizer/") + name;
}

TEST(Tokenize, GivesIdsAndTextBack) {
  const ScratchFolder folder;
  folder.write("tokenizer.json", read_text(fixture("byte_level.json")));
  const Json vector = read_json(fixture("vectors.json"))["byte_level"][4];
  const std::string text = vector["text"];
  const auto result = run_slmc({"tokenize", folder.path(), "--text", text, "--json", "-"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(parse_json(result.out, "out")["ids"], vector["ids"]);
  const auto plain = run_slmc({"tokenize", folder.path(), "--file", folder.write("t.txt", text),
                               "--no-special", "--json", "-"});
  EXPECT_EQ(parse_json(plain.out, "out")["ids"], vector["plain"]);
  const auto back = run_slmc({"tokenize", folder.path(), "--decode", vector["plain"].dump()});
  EXPECT_EQ(back.out, text + "\n");
}

TEST(Tokenize, LinesGiveListsAndBack) {
  const ScratchFolder folder;
  folder.write("tokenizer.json", read_text(fixture("byte_level.json")));
  const auto result = run_slmc(
      {"tokenize", folder.path(), "--file",
       folder.write("t.jsonl", "{\"text\":\"the\"}\n{\"text\":\" oven\"}\n"), "--json", "-"});
  const Json ids = parse_json(result.out, "out")["ids"];
  ASSERT_EQ(ids.size(), 2u);
  std::string lines;
  for (const Json& list : ids) lines += Json{{"ids", list}}.dump() + "\n";
  const auto back = run_slmc({"tokenize", folder.path(), "--decode", folder.write("i.jsonl", lines),
                              "--skip-special", "--json", "-"});
  EXPECT_EQ(parse_json(back.out, "out")["text"], (Json{"the", " oven"}));
}

TEST(Tokenize, RefusesWhatItCannotDo) {
  const ScratchFolder folder;
  EXPECT_EQ(run_slmc({"tokenize", folder.path(), "--text", "a"}).exit_code, 3);
  folder.write("tokenizer.json", read_text(fixture("byte_level.json")));
  EXPECT_EQ(run_slmc({"tokenize", folder.path(), "--text", "a", "--file", "b"}).exit_code, 2);
  EXPECT_EQ(run_slmc({"tokenize", folder.path(), "--decode", "1,x"}).exit_code, 3);
  EXPECT_EQ(run_slmc({"tokenize", folder.path(), "--decode", "99999"}).exit_code, 3);
  folder.write("tokenizer.json", "{\"model\":");
  const auto broken = run_slmc({"tokenize", folder.path(), "--text", "a"});
  EXPECT_EQ(broken.exit_code, 3);
  EXPECT_NE(broken.err.find("tokenizer.json"), std::string::npos) << broken.err;
  folder.write("tokenizer.json", R"({"model":{"type":"CharBPE","vocab":{"a":0}}})");
  EXPECT_EQ(run_slmc({"tokenize", folder.path(), "--text", "a"}).exit_code, 4);
}

TEST(TrainTokenizer, WritesAFolderThatOpens) {
  const ScratchFolder folder;
  const auto result = run_slmc({"train-tokenizer", "--data", fixture("corpus.txt"), "--vocab",
                                "400", "-o", folder.file("out")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json config = read_json(folder.file("out/tokenizer_config.json"));
  EXPECT_EQ(config["bos_token"], "<|begin_of_text|>");
  EXPECT_EQ(config["eos_token"], "<|end_of_text|>");
  const auto ids = run_slmc({"tokenize", folder.file("out"), "--text", "the oven", "--json", "-"});
  EXPECT_EQ(parse_json(ids.out, "out")["ids"][0], 0);
  EXPECT_EQ(run_slmc({"train-tokenizer", "--data", fixture("corpus.txt"), "--vocab", "400", "-o",
                      folder.file("out")})
                .exit_code,
            2);
  EXPECT_EQ(run_slmc({"train-tokenizer", "--data", fixture("corpus.txt"), "--vocab", "200", "-o",
                      folder.file("b")})
                .exit_code,
            2);
  EXPECT_EQ(run_slmc({"train-tokenizer", "--data", folder.file("none.txt"), "-o", folder.file("b")})
                .exit_code,
            3);
}

}  // namespace
}  // namespace slmc
