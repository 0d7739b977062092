// Copying drills: a message that is a list of values, and the answer that puts them in order. A
// model that starts from random weights learns to copy what it has never seen much sooner from
// these than from conversations, where few tokens are copies.
#pragma once

#include <cstdint>
#include <string>

namespace slmc::helpdesk {

struct Drill {
  std::string prompt, response;
};
/// The same (seed, index) gives the same drill on every machine.
Drill make_drill(uint64_t seed, uint64_t index);

}  // namespace slmc::helpdesk
