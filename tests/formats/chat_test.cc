// Chat formats against jinja2's rendering of the same templates (fixtures/chat/generate.py).
#include "formats/chat.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "formats/modelfile.h"

namespace slmc {
namespace {

constexpr const char* kChatml =
    "{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n{% endfor %}";

std::vector<ChatMessage> messages_of(const Json& json) {
  std::vector<ChatMessage> messages;
  for (const Json& message : json)
    messages.push_back(
        {message.at("role").get<std::string>(), message.at("content").get<std::string>()});
  return messages;
}

TEST(Chat, RendersAsJinjaDoes) {
  const Json cases = read_json(SLMC_FIXTURES "/chat/cases.json");
  ASSERT_GE(cases.size(), 12u);
  for (const Json& item : cases) {
    const RenderedChat chat =
        render_chat(messages_of(item.at("messages")), item.at("template").get<std::string>(), true);
    EXPECT_EQ(chat.text(), item.at("text").get<std::string>()) << item.at("name");
  }
}

TEST(Chat, LearnsOnlyTheAssistant) {
  const RenderedChat chat = render_chat({{"user", "Hi"}, {"assistant", "Hello."}}, kChatml, false);
  ASSERT_EQ(chat.segments.size(), 3u);
  EXPECT_FALSE(chat.segments[0].learned);
  EXPECT_EQ(chat.segments[1].text, "Hello.<|im_end|>");
  EXPECT_TRUE(chat.segments[1].learned);
  EXPECT_FALSE(chat.segments[2].learned);
  EXPECT_EQ(chat.stops, std::vector<std::string>{"<|im_end|>"});
}

TEST(Chat, UnknownTemplateIsUnsupported) {
  for (const char* text : {"", "{{ messages[0].content }}", "<|im_start|><|im_end|><think>"}) {
    try {
      render_chat({{"user", "Hi"}}, text, true);
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUnsupported);
    }
  }
}

TEST(Chat, UnknownRoleIsBadInput) {
  try {
    render_chat({{"tool", "42"}}, kChatml, true);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
  }
}

TEST(Modelfile, SaysTemplateStopsAndContext) {
  const std::string text = modelfile_text(
      {.gguf = "helpdesk.gguf", .chat_template = kChatml, .context = 512, .temperature = 0});
  EXPECT_EQ(text,
            "FROM ./helpdesk.gguf\n"
            "TEMPLATE \"\"\"{{- range .Messages }}"
            "{{ if eq .Role \"system\" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n"
            "{{ else if eq .Role \"user\" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n"
            "{{ else if eq .Role \"assistant\" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n"
            "{{ end }}{{ end }}<|im_start|>assistant\n\"\"\"\n"
            "PARAMETER stop \"<|im_end|>\"\n"
            "PARAMETER num_ctx 512\n"
            "PARAMETER temperature 0\n");
}

TEST(Modelfile, WithoutChatTemplatePassesThePrompt) {
  EXPECT_EQ(modelfile_text({.gguf = "/models/a.gguf"}),
            "FROM /models/a.gguf\nTEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n");
}

}  // namespace
}  // namespace slmc
