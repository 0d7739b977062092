// `slmc chat` through a pipe, and `slmc generate --chat`.
#include <gtest/gtest.h>

#include "compress/core/json.h"
#include "tests/support/run_program.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

constexpr const char* kTemplate =
    "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}{{ opening | default('a') }}:{% endif %}";

class Chat : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.path());
    folder_.write("chat_template.jinja", kTemplate);
  }
  test::ProgramResult talk(const std::string& lines) const {
    return test::run_program("/bin/sh",
                             {"-c", "printf '" + lines + "' | \"$@\"", "sh", SLMC_PROGRAM, "chat",
                              folder_.path(), "-n", "6", "--temperature", "0", "--json", "-"});
  }
  test::TemporaryFolder folder_;
};

TEST_F(Chat, EachLineOfAPipeIsAMessage) {
  const auto result = talk("Hi\\nMore\\n/reset\\n\\nHi\\n/exit\\nnever\\n");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json turns = parse_json(result.out, "out")["turns"];
  ASSERT_EQ(turns.size(), 3u);
  EXPECT_EQ(turns[0]["message"], "Hi");
  EXPECT_GT(turns[1]["reused_tokens"].get<int>(), 0);
  EXPECT_EQ(turns[2]["answer"], turns[0]["answer"]);
  EXPECT_EQ(turns[2]["prompt_tokens"], turns[0]["prompt_tokens"]);
}

TEST_F(Chat, GenerateRendersTheTemplate) {
  const auto chat =
      test::run_slmc({"generate", folder_.path(), "--chat", "-p", "Hi", "-n", "6", "--json", "-"});
  ASSERT_EQ(chat.exit_code, 0) << chat.err;
  EXPECT_EQ(parse_json(chat.out, "out")["text"],
            parse_json(talk("Hi\\n").out, "out")["turns"][0]["answer"]);
  const auto other =
      test::run_slmc({"generate", folder_.path(), "--chat", "-p", "Hi", "-n", "6", "--system", "S",
                      "--template-option", "opening=assistant", "--json", "-"});
  ASSERT_EQ(other.exit_code, 0) << other.err;
  EXPECT_GT(parse_json(other.out, "out")["prompt_tokens"].get<int>(),
            parse_json(chat.out, "out")["prompt_tokens"].get<int>());
}

TEST_F(Chat, ErrorsAreOneLineWithTheirCode) {
  EXPECT_EQ(test::run_slmc({"generate", folder_.path(), "-p", "Hi", "--system", "S"}).exit_code, 2);
  EXPECT_EQ(
      test::run_slmc({"generate", folder_.path(), "--chat", "-p", "Hi", "--template-option", "x"})
          .exit_code,
      2);
  folder_.write("chat_template.jinja", "{{ x | nonesuch }}");
  const auto unknown = test::run_slmc({"generate", folder_.path(), "--chat", "-p", "Hi"});
  EXPECT_EQ(unknown.exit_code, 4);
  EXPECT_NE(unknown.err.find("nonesuch"), std::string::npos);
  folder_.write("chat_template.jinja", "{{ raise_exception('no') }}");
  EXPECT_EQ(test::run_slmc({"generate", folder_.path(), "--chat", "-p", "Hi"}).exit_code, 3);
}

TEST_F(Chat, TokenizeRendersConversations) {
  const std::string lines = folder_.write(
      "talk.jsonl",
      R"({"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes"}]})");
  const auto result = test::run_slmc({"tokenize", folder_.path(), "--file", lines, "--json", "-"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto plain = test::run_slmc({"tokenize", folder_.path(), "--text", "user:Hi;assistant:Yes;",
                                     "--no-special", "--json", "-"});
  EXPECT_EQ(parse_json(result.out, "out")["ids"][0], parse_json(plain.out, "out")["ids"]);
}

}  // namespace
}  // namespace slmc
