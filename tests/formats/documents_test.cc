#include "formats/documents.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"

namespace slmc {
namespace {

class Documents : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    const std::string path = testing::TempDir() + "slmc_documents_" + name;
    std::ofstream(path, std::ios::binary) << text;
    paths_.push_back(path);
    return path;
  }
  void TearDown() override {
    for (const std::string& path : paths_) std::filesystem::remove(path);
  }

 private:
  std::vector<std::string> paths_;
};

TEST_F(Documents, TextIsOneDocumentAndLinesAreOneEach) {
  const auto documents = read_documents(
      {write("a.txt", "one\ntwo\n"),
       write("b.jsonl", "{\"text\":\"x\"}\n\n{\"prompt\":\"p\",\"response\":\"r\"}\r\n")},
      "");
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[0].segments[0].text, "one\ntwo\n");
  EXPECT_EQ(documents[1].segments[0].text, "x");
  ASSERT_EQ(documents[2].segments.size(), 2u);
  EXPECT_FALSE(documents[2].segments[0].learned);
  EXPECT_TRUE(documents[2].segments[1].learned);
  EXPECT_TRUE(documents[2].source.ends_with("b.jsonl:3"));
}

TEST_F(Documents, MessagesLearnOnlyTheAssistant) {
  const std::string line =
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"yes"}]})";
  const auto documents = read_documents({write("c.jsonl", line)}, "<|im_start|><|im_end|>");
  std::string learned, given;
  for (const Segment& s : documents.at(0).segments) (s.learned ? learned : given) += s.text;
  EXPECT_EQ(learned.substr(0, 13), "yes<|im_end|>");
  EXPECT_NE(given.find("hi"), std::string::npos);
}

TEST_F(Documents, ErrorsNameFileAndLineNeverTheText) {
  const std::string good = "{\"text\":\"fine\"}\n";
  for (const std::string bad :
       {"{\"text\":\"SECRET", "[\"SECRET\"]", "{\"text\":5}", "{\"promt\":\"SECRET\"}",
        "{\"messages\":\"SECRET\"}", "{\"messages\":[{\"role\":\"SECRET\"}]}", "SECRET",
        "{\"text\":\"SECRET\xff\"}"}) {
    try {
      read_documents({write("d.jsonl", good + bad + "\n")}, "<|im_start|><|im_end|>");
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find("d.jsonl:2"), std::string::npos) << what;
      EXPECT_EQ(what.find("SECRET"), std::string::npos) << what;
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << what;
    }
  }
  EXPECT_THROW(read_documents({write("e.txt", "")}, ""), Error);
}

TEST_F(Documents, TokensCarryWhatIsLearned) {
  const auto tokenizer = Tokenizer::from_json(read_text(SLMC_FIXTURES "/tokenizer/byte_level.json"),
                                              Json{{"eos_token", "<|end_of_text|>"}}, "t");
  Document document;
  document.segments = {{"the ", false}, {"oven", false}, {" door", true}};
  const TokenizedDocument out = tokenize_document(document, *tokenizer, true);
  std::vector<int32_t> expected =
      tokenizer->encode("the oven", true);  // Neighbours learned alike are one text.
  const size_t given = expected.size();
  for (const int32_t id : tokenizer->encode(" door", false)) expected.push_back(id);
  expected.push_back(tokenizer->eos());
  EXPECT_EQ(out.ids, expected);
  for (size_t i = 0; i < out.ids.size(); ++i) EXPECT_EQ(out.learned[i], i < given ? 0 : 1) << i;
  EXPECT_EQ(tokenize_document(document, *tokenizer, false).ids.size() + 1, out.ids.size());
}

}  // namespace
}  // namespace slmc
