// Binding of all five kinds of options to the command line, on a subject made for it.
#include "compress/cli/options.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"

namespace slmc {
namespace {

struct Subject : Configurable {
  std::string model, output = "out", kind = "a";
  std::vector<std::string> data;
  int64_t count = 3;
  double rate = 0.5;
  bool merge = true, full = false;

  void visit(Fields& fields) override {
    fields.visit({.name = "model", .help = "Model.", .required = true, .positional = true}, model);
    fields.visit({.name = "output", .help = "Output.", .short_flag = "o", .value_name = "OUT"},
                 output);
    fields.visit({.name = "kind", .help = "Kind.", .choices = {"a", "b"}}, kind);
    fields.visit({.name = "data_files", .help = "Data.", .value_name = "FILE"}, data);
    fields.visit({.name = "count", .help = "Count.", .min = 1, .max = 9}, count);
    fields.visit({.name = "rate", .help = "Rate.", .min = 0}, rate);
    fields.visit({.name = "merge", .help = "Merge."}, merge);
    fields.visit({.name = "full", .help = "Full."}, full);
  }
};

Subject parsed(const std::vector<std::string>& arguments) {
  Subject subject;
  parse_options(collect_options(subject, false), arguments, "test");
  return subject;
}

std::string refusal(const std::vector<std::string>& arguments) {
  try {
    parsed(arguments);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(Options, KeepDefaultsThatAreNotMentioned) {
  const Subject subject = parsed({"m"});
  EXPECT_EQ(subject.model, "m");
  EXPECT_EQ(subject.output, "out");
  EXPECT_EQ(subject.count, 3);
  EXPECT_TRUE(subject.merge);
}

TEST(Options, AcceptTheUsualSpellings) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"m", "-o", "x"},
                                                                     {"m", "-ox"},
                                                                     {"m", "--output", "x"},
                                                                     {"m", "--output=x"},
                                                                     {"--output", "x", "m"},
                                                                     {"-o", "x", "--", "m"},
                                                                     {"--model", "m", "-o", "x"}}) {
    const Subject subject = parsed(arguments);
    EXPECT_EQ(subject.output, "x") << arguments[0];
    EXPECT_EQ(subject.model, "m") << arguments[0];
  }
}

TEST(Options, BracketsArePartOfAValue) {
  EXPECT_EQ(parsed({"m", "--data-files", "[PAD]", "[a,b]", "[", "]"}).data,
            (std::vector<std::string>{"[PAD]", "[a,b]", "[", "]"}));
  EXPECT_EQ(parsed({"[m]", "--data-files=[PAD]"}).data, std::vector<std::string>{"[PAD]"});
  const Subject subject = parsed({"[m]", "-o[x]"});
  EXPECT_EQ(subject.model, "[m]");
  EXPECT_EQ(subject.output, "[x]");
  EXPECT_NE(refusal({"m", "[n]"}).find("unexpected argument '[n]'"), std::string::npos);
}

TEST(Options, ListsTakeSeveralValuesAndRepeats) {
  const std::vector<std::string> three = {"a", "b", "c"};
  EXPECT_EQ(parsed({"m", "--data-files", "a", "b", "c"}).data, three);
  EXPECT_EQ(parsed({"m", "--data-files", "a", "--data-files", "b", "c"}).data, three);
  EXPECT_EQ(parsed({"--data-files", "a", "b", "c", "--", "m"}).data, three);
}

TEST(Options, ANumberMayBeNegativeOrInExponentForm) {
  EXPECT_DOUBLE_EQ(parsed({"m", "--rate", "1e-4"}).rate, 1e-4);
  EXPECT_DOUBLE_EQ(parsed({"m", "--rate", "+2"}).rate, 2);
  EXPECT_NE(refusal({"m", "--rate", "-2"}).find("--rate: expected a number at least 0, found '-2'"),
            std::string::npos);
  EXPECT_NE(refusal({"m", "--rate", "nan"}).find("found 'nan'"), std::string::npos);
  EXPECT_NE(refusal({"m", "--count", "3.5"}).find("whole number from 1 to 9, found '3.5'"),
            std::string::npos);
  EXPECT_NE(refusal({"m", "--count", "10"}).find("found '10'"), std::string::npos);
  EXPECT_NE(refusal({"m", "--count", ""}).find("found ''"), std::string::npos);
}

TEST(Options, FlagsThatAreOnCanBeSwitchedOff) {
  EXPECT_FALSE(parsed({"m", "--no-merge"}).merge);
  EXPECT_TRUE(parsed({"m", "--merge"}).merge);
  EXPECT_TRUE(parsed({"m", "--full"}).full);
  EXPECT_FALSE(parsed({"m", "--full=false"}).full);
  EXPECT_NE(refusal({"m", "--merge", "--no-merge"}).find("opposite"), std::string::npos);
  EXPECT_NE(refusal({"m", "--full=perhaps"}).find("true or false"), std::string::npos);
}

TEST(Options, AValueMayLookLikeAnOption) {
  EXPECT_EQ(parsed({"m", "-o", "-"}).output, "-");
  EXPECT_EQ(parsed({"m", "-o", "- list item"}).output, "- list item");
  EXPECT_EQ(parsed({"m", "--output=--full"}).output, "--full");
}

TEST(Options, NamesWhatSwallowedAMissingArgument) {
  const std::string message = refusal({"--data-files", "a", "m"});
  EXPECT_NE(message.find("MODEL is missing (--data-files takes all values that follow it"),
            std::string::npos)
      << message;
}

TEST(Options, ChoicesAreChecked) {
  EXPECT_EQ(parsed({"m", "--kind", "b"}).kind, "b");
  EXPECT_NE(refusal({"m", "--kind", "c"}).find("--kind: expected one of a, b, found 'c'"),
            std::string::npos);
}

}  // namespace
}  // namespace slmc
