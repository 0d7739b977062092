// The helpdesk conversations keep what their description promises: varied, balanced, answerable
// from the message alone, and a test split whose names and wordings training never shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "compress/core/error.h"
#include "examples/helpdesk/conversation.h"
#include "examples/helpdesk/grammar.h"
#include "examples/helpdesk/phrases.h"
#include "examples/helpdesk/typing.h"

namespace slmc::helpdesk {
namespace {

constexpr int kCount = 6000;

std::vector<Conversation> conversations(Split split) {
  std::vector<Conversation> talks;
  for (int i = 0; i < kCount; ++i)
    talks.push_back(make_conversation(1, split, static_cast<uint64_t>(i)));
  return talks;
}
const std::vector<Conversation>& train() {
  static const auto talks = conversations(Split::kTrain);
  return talks;
}
const std::vector<Conversation>& test() {
  static const auto talks = conversations(Split::kTest);
  return talks;
}

std::string text_of(const Pieces& pieces) {
  std::string text;
  for (const Piece& piece : pieces) text += piece.text;
  return text;
}

std::set<std::string> values_of(const std::vector<Conversation>& talks, std::string_view name) {
  std::set<std::string> values;
  for (const Conversation& talk : talks)
    for (const auto& [field, value] : talk.fields) {
      if (field != name) continue;
      std::string lower = value;
      std::transform(lower.begin(), lower.end(), lower.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      values.insert(lower);
    }
  return values;
}

TEST(Helpdesk, SameIndexSameConversation) {
  for (const uint64_t index : {0, 17, 4000}) {
    const Conversation again = make_conversation(1, Split::kTrain, index);
    EXPECT_EQ(again.prompt, train()[index].prompt);
    EXPECT_EQ(again.response, train()[index].response);
  }
  EXPECT_NE(make_conversation(2, Split::kTrain, 0).prompt, train()[0].prompt);
}

TEST(Helpdesk, ConversationsAreDistinct) {
  std::set<std::string> prompts;
  for (const Conversation& talk : train()) prompts.insert(talk.prompt);
  // By the birthday estimate pairs/2 = n^2/(2N): under 0.5% repeats among 6000 means more than
  // 600,000 equally likely texts.
  EXPECT_GE(prompts.size(), static_cast<size_t>(kCount * 0.995));
}

TEST(Helpdesk, IntentsAreBalanced) {
  std::map<std::string, int> counts;
  for (const Conversation& talk : train()) ++counts[talk.fields.front().second];
  EXPECT_EQ(counts.size(), intents().size());
  const double mean = static_cast<double>(kCount) / static_cast<double>(intents().size());
  for (const auto& [intent, count] : counts) {
    EXPECT_GT(count, 0.75 * mean) << intent;
    EXPECT_LT(count, 1.35 * mean) << intent;
  }
}

TEST(Helpdesk, MessagesAreShort) {
  size_t total = 0;
  for (const Conversation& talk : train()) {
    EXPECT_LT(talk.prompt.size() + talk.response.size(), 800u);
    total += talk.prompt.size() + talk.response.size();
  }
  EXPECT_LT(total / kCount, 350u);
}

TEST(Helpdesk, CopiedValuesAreInTheMessage) {
  for (const auto* talks : {&train(), &test()})
    for (const Conversation& talk : *talks)
      for (const auto& [name, value] : talk.fields) {
        if (name == "intent" || name == "problem" || name == "urgency" || name == "product")
          continue;
        EXPECT_NE(talk.prompt.find(value), std::string::npos)
            << name << ": " << value << " in " << talk.prompt;
      }
}

TEST(Helpdesk, TestSplitHasItsOwnNames) {
  for (const char* name : {"brand", "city"}) {
    const auto known = values_of(train(), name), unseen = values_of(test(), name);
    std::vector<std::string> both;
    std::set_intersection(known.begin(), known.end(), unseen.begin(), unseen.end(),
                          std::back_inserter(both));
    EXPECT_TRUE(both.empty()) << name << " " << both.front();
  }
  const auto known = values_of(train(), "product"), unseen = values_of(test(), "product");
  EXPECT_GT(unseen.size(), known.size());
}

TEST(Helpdesk, TestSplitHasItsOwnWording) {
  const auto share = static_cast<double>(
                         std::count_if(test().begin(), test().end(),
                                       [](const Conversation& talk) { return talk.new_wording; })) /
                     kCount;
  EXPECT_NEAR(share, 0.475, 0.05);
  EXPECT_TRUE(std::none_of(train().begin(), train().end(),
                           [](const Conversation& talk) { return talk.new_wording; }));
}

TEST(Helpdesk, EveryIntentHasAReplyWithoutValues) {
  for (const Intent& intent : intents())
    EXPECT_TRUE(std::any_of(intent.replies.begin(), intent.replies.end(),
                            [](std::string_view reply) { return names_in(reply).empty(); }))
        << intent.name;
}

TEST(Helpdesk, AmbiguousRequestsNameRealIntents) {
  std::set<std::string_view> names;
  for (const Intent& intent : intents()) names.insert(intent.name);
  for (const Ambiguous& both : ambiguous_requests()) {
    EXPECT_EQ(names.count(both.likely), 1u) << both.likely;
    EXPECT_EQ(names.count(both.other), 1u) << both.other;
  }
}

TEST(Grammar, ExpandsNestedAlternatives) {
  std::set<std::string> texts;
  Random random(3);
  for (int i = 0; i < 200; ++i)
    texts.insert(text_of(expand("[a|b[c|d|]] {x}", random, [](std::string_view name) {
      return Piece{std::string(name) + "!"};
    })));
  EXPECT_EQ(texts, (std::set<std::string>{"a x!", "bc x!", "bd x!", "b x!"}));
}

TEST(Grammar, EmptyAlternativesLeaveOneSpace) {
  Random random(1);
  EXPECT_EQ(text_of(expand("one [|] two", random, nullptr)), "one two");
}

TEST(Grammar, UnbalancedPatternIsOurFault) {
  Random random(1);
  EXPECT_THROW(expand("[a|b", random, nullptr), Error);
  EXPECT_THROW(expand("{a", random, nullptr), Error);
}

TEST(Typing, ExactPiecesStay) {
  Random random(5);
  Pieces pieces = {{"something rather long to type", "", false}, {"HD-4711x", "order", true}};
  make_slips(pieces, 0.5, random);
  EXPECT_NE(pieces[0].text, "something rather long to type");
  EXPECT_EQ(pieces[1].text, "HD-4711x");
}

}  // namespace
}  // namespace slmc::helpdesk
