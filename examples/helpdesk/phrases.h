// The words of the conversations, as data: what customers ask for, what they say around it, what
// the agent answers. Patterns are those of grammar.h. Vectors named *_in_test are used by the test
// split only.
#pragma once

#include <string_view>
#include <vector>

namespace slmc::helpdesk {

using Patterns = std::vector<std::string_view>;

struct Intent {
  std::string_view name;
  Patterns asks;  ///< The request, as a sentence without its capital.
  Patterns asks_in_test;
  Patterns also;  ///< The same as something to do: "send me the invoice". No values inside.
  std::vector<std::string_view> details;  ///< Keys of detail_sentences() that fit this request.
  Patterns replies;  ///< The agent's answers; one whose values were all mentioned is chosen.
};
/// The two halves of the table, so that each file stays short.
std::vector<Intent> order_intents();
std::vector<Intent> appliance_intents();
const std::vector<Intent>& intents();

/// A request that even a person could take for either of two intents.
struct Ambiguous {
  std::string_view ask;
  std::string_view likely, other;
  double probability;  ///< Of `likely`.
};
const std::vector<Ambiguous>& ambiguous_requests();

/// Sentences that give one more value.
struct Detail {
  std::string_view key;
  Patterns said, said_in_test;
};
const std::vector<Detail>& detail_sentences();

struct Around {
  Patterns openers, openers_in_test;
  Patterns closers, closers_in_test;
  Patterns digressions,
      digressions_in_test;  ///< May name things that are not what the request is about.
  Patterns later,
      later_in_test;  ///< Something else for later, then the request: "{also}" is the other thing.
  Patterns added, added_in_test;      ///< Something else after the request.
  Patterns refused, refused_in_test;  ///< Something that the customer does not want.
  Patterns urgent, urgent_in_test;
  Patterns questions;  ///< The agent asks for more before a second turn.
};
const Around& around();

}  // namespace slmc::helpdesk
