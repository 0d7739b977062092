// The text around each role's messages, found by rendering a chat template: for programs that
// cannot run Jinja.
#pragma once

#include <string>

#include "formats/chat/chat.h"

namespace slmc {

struct ChatTurns {
  struct Turn {
    std::string begin, end;
  };
  Turn system, user, assistant;
  std::string generation;      ///< What opens an answer.
  std::string default_system;  ///< The system text where the conversation has none.
  bool has_system = true;
  bool always_system = false;  ///< The system turn is there even when nothing is in it.
  /// The system's text lies inside the first user turn: user.begin, system.begin, text, system.end,
  /// question...
  bool system_in_user = false;
  bool dated = false;  ///< The template names the day; here is what it says without a clock.
};

/// Throws Error(kUnsupported), saying why, for a template that is not a row of turns: one that
/// needs the date, or whose turns look different from one place to the next. The first BOS is left
/// out: what reads a GGUF adds it.
ChatTurns derive_turns(const ChatTemplate& chat_template);

}  // namespace slmc
