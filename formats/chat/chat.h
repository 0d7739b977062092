// Conversations as text: a model's own chat template, rendered as transformers' apply_chat_template
// does, and which parts of the text the assistant said.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model.h"

namespace slmc {

struct ChatMessage {
  std::string role;  ///< "system", "user", "assistant", and what else the template knows.
  std::string content;
};

/// A Jinja template and the special tokens that it may name.
class ChatTemplate {
 public:
  /// No template: rendering is an Error(kUnsupported) that says so.
  ChatTemplate() = default;
  /// What is wrong with the template is told when it is used: a model that is never talked to does
  /// not need it.
  ChatTemplate(const std::string& source, std::string bos = "", std::string eos = "");
  /// The model's template; the special tokens' texts come from tokenizer_config.json and
  /// special_tokens_map.json.
  static ChatTemplate from_assets(const Assets& assets);

  explicit operator bool() const { return parsed_ != nullptr; }
  const std::string& bos() const { return bos_; }
  const std::string& eos() const { return eos_; }
  /// The whole text, with the special tokens that the template puts in; encode it without adding
  /// others. `add_generation_prompt`: end with what opens an answer. `options`: further variables
  /// of the template, an object
  /// ({"enable_thinking": false}). `now`: for templates that name the date; -1 is the clock's,
  /// jinja::kNoClock none. Throws Error(kBadInput) when the template refuses the messages or is
  /// wrong itself, Error(kUnsupported) when it uses what is not implemented; both name its line.
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     const Json& options = {}, std::time_t now = -1) const;
  /// What ends an answer: the first marker between an answer and the next message, or "" if there
  /// is none.
  const std::string& stop() const { return stop_; }

 private:
  friend struct RenderedChat render_chat(const std::vector<ChatMessage>&, const ChatTemplate&, bool,
                                         const Json&);
  struct Parsed;
  const Parsed& parsed() const;
  std::string find_stop() const;
  std::shared_ptr<const Parsed> parsed_;
  std::string bos_, eos_, stop_;
};

/// A piece of a document; only pieces with `learned` count in a loss.
struct Segment {
  std::string text;
  bool learned = true;
};

struct RenderedChat {
  std::vector<Segment>
      segments;  ///< In order; an answer and the marker that ends it are `learned`.
  std::vector<std::string> stops;  ///< Texts that end an answer.
  std::string text() const;        ///< All segments, joined: what ChatTemplate::render gives.
};

/// Renders `messages` and tells what the assistant said: by the template's {% generation %} marks
/// where it has them, else by rendering again with another answer in place of each. Throws
/// Error(kUnsupported) if an answer cannot be told from the rest.
RenderedChat render_chat(const std::vector<ChatMessage>& messages,
                         const ChatTemplate& chat_template, bool add_generation_prompt,
                         const Json& options = {});

}  // namespace slmc
