// How people type: slips of the finger, missing capitals and full stops.
#pragma once

#include <string>

#include "examples/helpdesk/grammar.h"

namespace slmc::helpdesk {

struct TypingStyle {
  double slips = 0;         ///< Expected typing errors per letter.
  bool lower_case = false;  ///< Everything small, names too.
  bool capitals = true;     ///< Sentences begin with a capital.
  bool full_stops = true;   ///< Otherwise sentences just follow each other, with a comma at most.
  bool ellipses = false;    ///< Sentences end in "...".
};

TypingStyle random_style(Random& random);
/// Neighbouring keys, dropped, doubled and swapped letters, in words of four letters or more;
/// `exact` pieces stay as they are.
void make_slips(Pieces& pieces, double per_letter, Random& random);
/// One message from its sentences, in `style`. Changes the pieces' texts to what is written
/// (casing), so labels can be read from them.
std::string write_message(std::vector<Pieces>& sentences, const TypingStyle& style, Random& random);

}  // namespace slmc::helpdesk
