// One support conversation with its answer: intent, values, a short reply. The answer follows from
// these rules:
//   - the intent is the request itself; what is merely told, refused, put off or added after it
//   does not count;
//   - a value counts if it belongs to the request; values of other things (a neighbour's brand,
//   another order) do not;
//   - names, numbers and dates are copied as the customer wrote them; products and faults get their
//   usual name.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "examples/helpdesk/lexicon.h"

namespace slmc::helpdesk {

struct Conversation {
  std::string prompt;  ///< ChatML up to the opening of the assistant's answer.
  std::string
      response;  ///< "intent: ...", a line a value, a blank line, a short reply, the end marker.
  std::vector<std::pair<std::string, std::string>> fields;  ///< Intent first; without the reply.
  bool new_wording = false;  ///< The request is worded as in no training text.
  bool ambiguous = false;
};

/// The same (seed, split, index) gives the same conversation on every machine.
Conversation make_conversation(uint64_t seed, Split split, uint64_t index);

/// Names of the values an answer may hold, in the order of its lines.
const std::vector<std::string_view>& field_names();

}  // namespace slmc::helpdesk
