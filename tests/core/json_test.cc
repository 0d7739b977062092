// JSON is read strictly, and whatever a file holds ends in a value or in an Error, never in another
// exception.
#include "compress/core/json.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "tests/support/run_program.h"

namespace slmc {
namespace {

std::string refusal(const std::string& text) {
  try {
    parse_json(text, "f.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    return error.what();
  }
  return "";
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(parse_json(R"({"z": 1, "a": {"y": 2, "b": 3}})", "f").dump(),
            R"({"z":1,"a":{"y":2,"b":3}})");
}

TEST(Json, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_NE(refusal(R"({"a": 1, "a": 2})").find("key 'a' appears twice"), std::string::npos);
  EXPECT_NE(refusal(R"({"x": [{"b": 1}, {"b": 1, "b": 2}]})").find("key 'b'"), std::string::npos);
  EXPECT_EQ(refusal(R"({"a": {"a": 1}, "b": {"a": 2}})"), "");
  EXPECT_EQ(refusal(R"([{"a": 1}, {"a": 2}])"), "");
}

TEST(Json, NamesTheByteWhereItBreaks) {
  EXPECT_NE(refusal(R"({"a": })").find("f.json: not valid JSON at byte 7"), std::string::npos)
      << refusal(R"({"a": })");
  for (const char* text : {"", "{", "[1, 2", "{\"a\" 1}", "{\"a\": 1} x", "[1,]", "{'a': 1}", "nul",
                           "\"\xff\"", "\"\\ud800\"", "NaN", "[1e999]", "// x\n1"}) {
    EXPECT_NE(refusal(text), "") << text;
  }
}

TEST(Json, RefusesDeepNesting) {
  EXPECT_NE(refusal(std::string(100000, '[')), "");
  EXPECT_NE(refusal(std::string(70, '[') + std::string(70, ']')).find("nested deeper than 64"),
            std::string::npos);
  EXPECT_EQ(refusal(std::string(64, '[') + std::string(64, ']')), "");
}

TEST(Json, EveryPrefixAndEveryChangedByteIsHandled) {
  const std::string text =
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1.5e3}, "merges": [["a", "b"]]}, "on": true, "none": null})";
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_NE(refusal(text.substr(0, size)), "") << size;
  for (size_t at = 0; at < text.size(); ++at) {
    for (const char byte : {'\0', '{', '"', '\\', '9', '\xff'}) {
      std::string changed = text;
      changed[at] = byte;
      refusal(changed);  // Any end but an Error fails the test.
    }
  }
}

TEST(Json, FilesNameThemselves) {
  const test::ScratchFolder folder;
  folder.write("x.json", "{\"a\": 1,}");
  try {
    read_json(folder.file("x.json"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("x.json"), std::string::npos);
  }
  EXPECT_THROW(read_json(folder.file("absent.json")), Error);
  EXPECT_THROW(read_json(folder.path()), Error);
}

}  // namespace
}  // namespace slmc
