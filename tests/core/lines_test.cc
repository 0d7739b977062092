#include "compress/core/lines.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

TEST(Lines, AreThoseWithAnythingInThemAndKeepTheirNumbers) {
  std::vector<std::string> seen;
  const auto collect = [&](std::string_view line, const std::string& where) {
    seen.push_back(where + " " + std::string(line));
    return seen.size() < 3;
  };
  for_each_line("\xef\xbb\xbf{}\n \t\r\n\n[1]\r\nlast", "f", collect);
  EXPECT_EQ(seen, (std::vector<std::string>{"f:1 {}", "f:4 [1]\r", "f:5 last"}));
  seen.clear();
  for_each_line("a\nb\nc\nd", "f", collect);  // Until visit returns false.
  EXPECT_EQ(seen.size(), 3u);
  seen.clear();
  for_each_line("", "f", collect);
  EXPECT_TRUE(seen.empty());
}

TEST(Lines, ErrorsSayWhereAndDoNotQuote) {
  EXPECT_EQ(parse_line("{\"a\": 1}\r", "f:7")["a"], 1);
  const std::string broken = test::error_of([] { parse_line("{\"secret\"", "f:7"); });
  EXPECT_NE(broken.find("f:7: the line is not valid JSON"), std::string::npos) << broken;
  EXPECT_EQ(broken.find("secret"), std::string::npos) << broken;
  const std::string list = test::error_of([] { parse_line("[1]", "f:7"); });
  EXPECT_NE(list.find("f:7: expected an object, found array"), std::string::npos) << list;
}

}  // namespace
}  // namespace slmc
