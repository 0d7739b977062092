#include "formats/chat/turns.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/chat/jinja.h"

namespace slmc {
namespace {

constexpr const char* kSystem = "slmcSystem";
constexpr const char* kQuestions[] = {"slmcQuestionA", "slmcQuestionB", "slmcQuestionC"};
constexpr const char* kAnswers[] = {"slmcAnswerA", "slmcAnswerB"};

[[noreturn]] void not_turns(const std::string& why) {
  throw_unsupported(
      cat("chat: the model's template cannot be written as an Ollama template: ", why));
}

std::vector<ChatMessage> sample(bool system, size_t exchanges) {
  std::vector<ChatMessage> messages;
  if (system) messages.push_back({"system", kSystem});
  for (size_t i = 0; i < exchanges; ++i) {
    messages.push_back({"user", kQuestions[i]});
    messages.push_back({"assistant", kAnswers[i]});
  }
  messages.push_back({"user", kQuestions[exchanges]});
  return messages;
}

/// Without a clock, since what is derived holds for every day.
std::string rendered(const ChatTemplate& chat, const std::vector<ChatMessage>& messages) {
  return chat.render(messages, true, {}, jinja::kNoClock);
}

/// Whether the text depends on the day.
bool names_date(const ChatTemplate& chat, const std::vector<ChatMessage>& messages) {
  try {
    return chat.render(messages, true, {}, 0) != rendered(chat, messages);
  } catch (const Error& error) {
    if (error.code() == ExitCode::kUnsupported) throw;
  }
  try {  // Refused without a clock alone, or for other reasons?
    chat.render(messages, true, {}, 0);
  } catch (const Error&) {
    return false;
  }
  not_turns("it needs the date");
}

/// What a template puts before, between and behind the messages' contents; nothing if it does not
/// show each once, in order.
std::optional<std::vector<std::string>> frame(const ChatTemplate& chat,
                                              const std::vector<ChatMessage>& messages) {
  std::string text;
  try {
    text = rendered(chat, messages);
  } catch (const Error& error) {
    if (error.code() == ExitCode::kUnsupported) throw;
    return std::nullopt;
  }
  if (!chat.bos().empty() && text.starts_with(chat.bos())) text.erase(0, chat.bos().size());
  std::vector<std::string> parts;
  size_t done = 0;
  for (const ChatMessage& message : messages) {
    const size_t at = text.find(message.content, done);
    if (at == std::string::npos) return std::nullopt;
    parts.push_back(text.substr(done, at - done));
    done = at + message.content.size();
    if (text.find(message.content, done) != std::string::npos) return std::nullopt;
  }
  parts.push_back(text.substr(done));
  return parts;
}

bool opens_marker(char c) { return c == '<' || c == '['; }

/// The longest common end of two texts that begins with a marker.
std::string common_end(const std::string& a, const std::string& b) {
  size_t length = 0;
  while (length < a.size() && length < b.size() &&
         a[a.size() - 1 - length] == b[b.size() - 1 - length])
    ++length;
  while (length > 0 && length < a.size() && !opens_marker(a[a.size() - length])) --length;
  return a.substr(a.size() - length);
}

/// What follows `stop` and white space in `text`, if it is there: a turn does not begin with the
/// end of another.
std::string behind(const std::string& text, const std::string& stop) {
  const size_t at = stop.empty() ? std::string::npos : text.rfind(stop);
  if (at == std::string::npos) return text;
  const size_t begin = text.find_first_not_of(" \t\n\r", at + stop.size());
  return begin == std::string::npos ? text : text.substr(begin);
}

/// Where what ends a question ends and what opens the answer begins; any place gives the same text,
/// this one reads best.
size_t boundary(const std::string& between, const std::string& user_begin) {
  if (!user_begin.empty() && opens_marker(user_begin[0])) {
    const size_t end = user_begin.find(user_begin[0] == '<' ? '>' : ']');
    const size_t at = between.rfind(user_begin.substr(0, end + 1));
    if (end != std::string::npos && at != std::string::npos) return at;
  }
  const size_t marker = between.find_last_of("<[");
  return marker == std::string::npos ? 0 : marker;
}

/// The conversation that `turns` gives, to compare with the template's own.
std::string compose(const ChatTurns& turns, const std::vector<ChatMessage>& messages) {
  std::string out, pending;
  const bool system = messages[0].role == "system";
  if (turns.has_system && !turns.system_in_user && !system &&
      (turns.always_system || !turns.default_system.empty()))
    out += turns.system.begin + turns.default_system + turns.system.end;
  for (const ChatMessage& message : messages) {
    const ChatTurns::Turn& turn = message.role == "system" ? turns.system
                                  : message.role == "user" ? turns.user
                                                           : turns.assistant;
    if (message.role == "system" && turns.system_in_user) {
      pending = turn.begin + message.content + turn.end;
      continue;
    }
    out += turn.begin + (message.role == "user" ? pending : "") + message.content + turn.end;
    if (message.role == "user") pending.clear();
  }
  return out + turns.generation;
}

void verify(const ChatTurns& turns, const ChatTemplate& chat,
            const std::vector<ChatMessage>& messages) {
  std::string text = rendered(chat, messages);
  if (!chat.bos().empty() && text.starts_with(chat.bos())) text.erase(0, chat.bos().size());
  if (compose(turns, messages) != text)
    not_turns("its turns look different from one place to the next");
}

void find_system(const std::vector<std::string>& plain, const std::vector<std::string>& with_system,
                 ChatTurns& turns) {
  const std::string& before = with_system[0];
  const std::string& behind = with_system[1];
  if (behind.ends_with(turns.user.begin) && !before.starts_with(plain[0])) {
    turns.system = {before, behind.substr(0, behind.size() - turns.user.begin.size())};
    std::string default_turn = plain[0].substr(0, plain[0].size() - turns.user.begin.size());
    if (default_turn.empty()) return;
    if (!default_turn.starts_with(turns.system.begin) ||
        !default_turn.ends_with(turns.system.end) ||
        default_turn.size() < turns.system.begin.size() + turns.system.end.size())
      not_turns("it begins with something that is no turn");
    default_turn.erase(0, turns.system.begin.size());
    default_turn.resize(default_turn.size() - turns.system.end.size());
    turns.default_system = default_turn;
    turns.always_system = default_turn.empty();
    return;
  }
  if (before.starts_with(plain[0])) {
    turns.system_in_user = true;
    turns.user.begin = plain[0];
    turns.system = {before.substr(plain[0].size()), behind};
    return;
  }
  not_turns("the system's text is not in a turn of its own");
}

}  // namespace

ChatTurns derive_turns(const ChatTemplate& chat_template) {
  const bool dated = names_date(chat_template, sample(false, 2));
  const auto plain = frame(chat_template, sample(false, 2));
  if (!plain) not_turns("it does not show each message once");
  const auto& p = *plain;  // [0] A [1] answer A [2] B [3] answer B [4] C [5]
  ChatTurns turns;
  turns.dated = dated;
  turns.user.begin = behind(common_end(p[0], p[2]), chat_template.stop());
  const size_t at = boundary(p[1], turns.user.begin);
  turns.user.end = p[1].substr(0, at);
  turns.assistant.begin = p[1].substr(at);
  if (p[1] != p[3] || p[2] != p[4] || !p[5].starts_with(turns.user.end))
    not_turns("its turns look different from one place to the next");
  turns.assistant.end = p[2].substr(0, p[2].size() - turns.user.begin.size());
  turns.generation = p[5].substr(turns.user.end.size());
  const auto with_system = frame(chat_template, sample(true, 2));
  turns.has_system = with_system.has_value();
  if (with_system)
    find_system(p, *with_system, turns);
  else if (p[0] != turns.user.begin)
    not_turns("it begins with something that is no turn");
  // In that form only one exchange is described.
  const size_t exchanges = turns.system_in_user ? 0 : 2;
  verify(turns, chat_template, sample(false, exchanges));
  if (with_system) verify(turns, chat_template, sample(true, exchanges));
  return turns;
}

}  // namespace slmc
