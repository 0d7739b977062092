// Conversations with a fake decoder that spells out given answers.
#include "compress/runtime/chat_session.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "formats/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

TEST(StopFilter, PassesOnWhatCannotBeAStop) {
  StopFilter filter({"<end>", "STOP"});
  EXPECT_EQ(filter.add("Hello <"), "Hello ");
  EXPECT_EQ(filter.add("b> S"), "<b> ");
  EXPECT_EQ(filter.add("T"), "");
  EXPECT_EQ(filter.add("art<en"), "STart");
  EXPECT_EQ(filter.add("d> never"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopFilter, GivesBackWhatWasHeldAtTheEnd) {
  StopFilter filter({"<end>"});
  EXPECT_EQ(filter.add("a<en"), "a");
  EXPECT_FALSE(filter.stopped());
  EXPECT_EQ(filter.finish(), "<en");
}

class ChatSessions : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.path());
    test::spit(folder_.path() + "/chat_template.jinja",
               "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}{% if "
               "add_generation_prompt %}a:{% endif %}");
    model_ = Model::open(folder_.path());
    decoder_ = Decoder::create(*model_, Activations::kF32);
  }
  ChatSession session(ChatOptions options = {}) const {
    options.most_tokens = 8;
    return {*model_, *decoder_, std::move(options)};
  }
  static bool go_on(const std::string&) { return true; }

  test::TemporaryFolder folder_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Decoder> decoder_;
};

TEST_F(ChatSessions, AnswerAsAPromptOfTheWholeConversationDoes) {
  ChatSession chat = session({.system = "S"});
  std::string shown;
  chat.say("Hi", [&](const std::string& text) {
    shown += text;
    return true;
  });
  EXPECT_EQ(shown, chat.messages().back().content);
  const ChatSession::Answer second = chat.say("Again", go_on);
  EXPECT_GT(second.reused_tokens, 0);
  const std::string prompt = "system:S;user:Hi;assistant:" + shown + ";user:Again;a:";
  const auto ids = model_->tokenizer().encode(prompt, false);
  EXPECT_EQ(second.prompt_tokens, static_cast<int64_t>(ids.size()));
  const GenerationResult whole =
      generate(*decoder_, ids, 8, {}, {}, 0, [](int32_t) { return true; });
  EXPECT_EQ(model_->tokenizer().decode(whole.ids, true).substr(0, second.text.size()), second.text);
}

TEST_F(ChatSessions, ResetForgetsAllButTheSystem) {
  ChatSession chat = session({.system = "S"});
  const std::string first = chat.say("Hi", go_on).text;
  chat.say("Other", go_on);
  chat.reset();
  ASSERT_EQ(chat.messages().size(), 1u);
  EXPECT_EQ(chat.say("Hi", go_on).text, first);
}

TEST_F(ChatSessions, CanBeStoppedAndGoOn) {
  ChatSession chat = session();
  int pieces = 0;
  const ChatSession::Answer answer =
      chat.say("Hi", [&](const std::string&) { return ++pieces < 2; });
  EXPECT_FALSE(answer.stopped);
  EXPECT_LE(answer.tokens, 8);
  EXPECT_EQ(chat.messages().back().content, answer.text);
  EXPECT_NO_THROW(chat.say("More", go_on));
}

TEST_F(ChatSessions, WhatDoesNotFitLeavesTheConversationAsItWas) {
  ChatSession chat = session({.context = 40});
  chat.say("Hi", go_on);
  EXPECT_THROW(chat.say(std::string(100, 'x'), go_on), Error);
  EXPECT_EQ(chat.messages().size(), 2u);
}

TEST_F(ChatSessions, NeedATemplate) {
  test::TemporaryFolder plain;
  test::write_tiny_model(plain.path());
  const auto model = Model::open(plain.path());
  EXPECT_THROW(ChatSession(*model, *decoder_, {}), Error);
}

}  // namespace
}  // namespace slmc
