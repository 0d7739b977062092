#include "formats/documents.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"

namespace slmc {
namespace {

const ChatTemplate kChatml(
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception(m.content) }}{% endif %}"
    "<|turn|>{{ m.role }}\n{{ m.content }}<|end_of_text|>\n{% endfor %}");

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
      {});
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
  const auto documents = read_documents({write("c.jsonl", line)}, kChatml);
  EXPECT_TRUE(documents.at(0).rendered);
  std::string learned, given;
  for (const Segment& s : documents.at(0).segments) (s.learned ? learned : given) += s.text;
  EXPECT_EQ(learned, "yes<|end_of_text|>");
  EXPECT_NE(given.find("hi"), std::string::npos);
}

TEST_F(Documents, ErrorsNameFileAndLineNeverTheText) {
  const std::string good = "{\"text\":\"fine\"}\n";
  for (const std::string bad :
       {"{\"text\":\"SECRET", "[\"SECRET\"]", "{\"text\":5}", "{\"promt\":\"SECRET\"}",
        "{\"messages\":\"SECRET\"}", "{\"messages\":[{\"role\":\"SECRET\"}]}", "SECRET",
        "{\"messages\":[{\"role\":\"tool\",\"content\":\"SECRET\"}]}",
        "{\"text\":\"SECRET\xff\"}"}) {
    try {
      read_documents({write("d.jsonl", good + bad + "\n")}, kChatml);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find("d.jsonl:2"), std::string::npos) << what;
      EXPECT_EQ(what.find("SECRET"), std::string::npos) << what;
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << what;
    }
  }
  EXPECT_THROW(read_documents({write("e.txt", "")}, {}), Error);
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

TEST_F(Documents, ConversationsAreEncodedAsAWhole) {
  const auto documents = read_documents(
      {write(
          "f.jsonl",
          R"({"messages":[{"role":"user","content":"the"},{"role":"assistant","content":" oven's door"}]})")},
      kChatml);
  std::string text;
  for (const Segment& s : documents.at(0).segments) text += s.text;
  for (const char* name : {"byte_level", "sentence"}) {
    const auto tokenizer = Tokenizer::from_json(
        read_text(std::string(SLMC_FIXTURES "/tokenizer/") + name + ".json"), Json(), "t");
    const TokenizedDocument out = tokenize_document(documents.at(0), *tokenizer, false);
    EXPECT_EQ(out.ids, tokenizer->encode(text, false)) << name;
    std::vector<int32_t> learned;
    for (size_t i = 0; i < out.ids.size(); ++i)
      if (out.learned[i]) learned.push_back(out.ids[i]);
    const std::string said = tokenizer->decode(learned);
    EXPECT_NE(said.find("oven's door<|end_of_text|>"), std::string::npos) << name << said;
    EXPECT_EQ(said.find("the"), std::string::npos) << name << said;
  }
}

}  // namespace
}  // namespace slmc
