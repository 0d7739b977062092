// Chat formats: how a conversation becomes the text that a model was trained on, and which parts of
// it the assistant said. Known formats are data, recognised by the markers in a model's chat
// template; templates are not executed here (no Jinja).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/documents.h"

namespace slmc {

struct ChatMessage {
  std::string role;  ///< "system", "user", "assistant".
  std::string content;
};

/// The text around one message.
struct ChatTurn {
  std::string_view begin;
  std::string_view end;
};

/// One known format. A template is of this format if it contains all of `markers` and none of
/// `foreign`.
struct ChatFormat {
  std::string_view name;  ///< "chatml"
  std::vector<std::string_view> markers;
  std::vector<std::string_view>
      foreign;  ///< Signs of rules that are not implemented (dates, tools that change plain turns).
  ChatTurn system, user, assistant;
  std::string_view generation;  ///< What opens the assistant's answer.
  std::string_view
      stop;  ///< Ends an answer; a prefix of assistant.end once leading spaces are skipped.
  bool trims = false;           ///< Contents lose white space at both ends.
  bool system_in_user = false;  ///< The system's text goes inside the first user turn.
  bool has_system = true;
  std::string_view first_begin =
      {};  ///< Replaces user.begin in the first turn (the tokenizer adds BOS there itself).
};

const std::vector<ChatFormat>& chat_formats();

/// The format of a Jinja chat template, from model assets or a GGUF. Throws Error(kUnsupported) if
/// there is none or it is not a known one.
const ChatFormat& chat_format_of(std::string_view chat_template);
/// The system text that the template puts first when the conversation has none ("" for most).
std::string default_system_prompt(std::string_view chat_template);

struct RenderedChat {
  std::vector<Segment>
      segments;  ///< In order; the assistant's words and the marker that ends them are `learned`.
  std::vector<std::string> stops;  ///< Texts that end an answer.
  std::string text() const;        ///< All segments, joined.
};

/// Renders `messages` without BOS, which tokenizers add themselves. `add_generation_prompt`: end
/// with what opens an answer. Throws Error(kUnsupported) for an unknown template or a system
/// message in a format without one, Error(kBadInput) for an unknown role.
RenderedChat render_chat(const std::vector<ChatMessage>& messages, std::string_view chat_template,
                         bool add_generation_prompt);

}  // namespace slmc
