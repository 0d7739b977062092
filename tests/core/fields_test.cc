// Options declared once: to JSON, from JSON, and what is refused.
#include "compress/core/fields.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/field_text.h"

namespace slmc {
namespace {

struct Subject : Configurable {
  bool flag = false;
  int64_t count = 3;
  double rate = 0.5;
  std::string kind = "a", output;
  std::vector<std::string> data;
  void visit(Fields& fields) override {
    fields.visit({.name = "flag", .help = "Flag."}, flag);
    fields.visit({.name = "count", .help = "Count.", .min = 1, .max = 9}, count);
    fields.visit({.name = "rate", .help = "Rate.", .min = 0}, rate);
    fields.visit({.name = "kind", .help = "Kind.", .choices = {"a", "b"}}, kind);
    fields.visit({.name = "output", .help = "Where to.", .required = true}, output);
    fields.visit({.name = "data_files", .help = "Data."}, data);
  }
};

std::string refusal(const char* json) {
  Subject subject;
  try {
    set_fields(subject, Json::parse(json), "here");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return error.what();
  }
  return "";
}

TEST(Fields, GoToJsonInOrderAndBack) {
  Subject subject;
  subject.output = "o";
  subject.data = {"x"};
  const Json json = fields_to_json(subject);
  EXPECT_EQ(json.dump(),
            R"({"flag":false,"count":3,"rate":0.5,"kind":"a","output":"o","data_files":["x"]})");
  Subject other;
  set_fields(other, json, "here");
  EXPECT_EQ(fields_to_json(other), json);
}

TEST(Fields, AcceptHyphensSingleValuesAndWholeFloats) {
  Subject subject;
  set_fields(
      subject,
      Json::parse(R"({"output": "o", "data-files": "x", "count": 4.0, "rate": 2, "kind": "b"})"),
      "here");
  EXPECT_EQ(subject.data, std::vector<std::string>{"x"});
  EXPECT_EQ(subject.count, 4);
  EXPECT_DOUBLE_EQ(subject.rate, 2);
}

TEST(Fields, RefuseWithPlaceKeyAndNearest) {
  EXPECT_NE(refusal(R"({"output": "o", "cont": 1})")
                .find("here: unknown key 'cont'; did you mean 'count'?"),
            std::string::npos);
  EXPECT_NE(
      refusal(R"({"output": "o", "count": 10})").find("count is 10; expected between 1 and 9"),
      std::string::npos);
  EXPECT_NE(refusal(R"({"output": "o", "count": "4"})").find("expected a whole number"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"output": "o", "count": 18446744073709551615})")
                .find("count is 18446744073709551615"),
            std::string::npos)
      << refusal(R"({"output": "o", "count": 18446744073709551615})");
  EXPECT_NE(refusal(R"({"output": "o", "rate": -1})").find("at least 0"), std::string::npos);
  EXPECT_NE(refusal(R"({"output": "o", "flag": 1})").find("true or false"), std::string::npos);
  EXPECT_NE(refusal(R"({"output": "o", "kind": "c"})").find("one of a, b"), std::string::npos);
  EXPECT_NE(refusal(R"({"output": "o", "data_files": {"a": 1}})").find("expected a text"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"count": 2})").find("output is missing (Where to.)"), std::string::npos);
  EXPECT_NE(refusal("[1]").find("expected a map"), std::string::npos);
}

TEST(FieldText, NamesFollowTheFlag) {
  EXPECT_EQ(flag_name({.name = "target_size", .help = ""}), "--target-size");
  EXPECT_EQ(field_name("target-size"), "target_size");
}

TEST(FieldText, ParsesWholeTextsOnly) {
  double number = 0;
  for (const char* text : {"", " 1", "1 ", "1x", "0x10", "1,5", "--1", "+-1", "infinity!"}) {
    EXPECT_THROW(set_field_text({.name = "n", .help = ""}, "n", text, number), Error) << text;
  }
  int64_t whole = 0;
  set_field_text({.name = "n", .help = ""}, "n", "-9223372036854775808", whole);
  EXPECT_EQ(whole, INT64_MIN);
  EXPECT_THROW(set_field_text({.name = "n", .help = ""}, "n", "9223372036854775808", whole), Error);
}

TEST(FieldText, RangesAreInWords) {
  EXPECT_EQ(range_text({.name = "n", .help = "", .min = 0, .max = 0.5}), "from 0 to 0.5");
  EXPECT_EQ(range_text({.name = "n", .help = "", .min = 1}), "at least 1");
  EXPECT_EQ(range_text({.name = "n", .help = "", .max = 4096}), "at most 4096");
  EXPECT_EQ(range_text({.name = "n", .help = ""}), "");
}

}  // namespace
}  // namespace slmc
