#include "formats/chat/chat.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/chat/jinja.h"

namespace slmc {
namespace {

constexpr std::string_view kSpaces = " \t\n\r";
/// Stand in for what is said, to find where a template puts it. Templates trim, and cut at tags;
/// these survive both.
constexpr const char* kSomeUser = "slmcQuestionOne";
constexpr const char* kSomeAnswer = "slmcAnswerOne";
constexpr const char* kOtherUser = "slmcQuestionTwo";

Json variables(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
               const std::string& bos, const std::string& eos, const Json& options) {
  Json list = Json::array();
  for (const ChatMessage& message : messages)
    list.push_back({{"role", message.role}, {"content", message.content}});
  Json all = {{"messages", list},
              {"tools", nullptr},
              {"documents", nullptr},
              {"add_generation_prompt", add_generation_prompt}};
  if (!bos.empty()) all["bos_token"] = bos;
  if (!eos.empty()) all["eos_token"] = eos;
  if (options.is_object()) all.update(options);
  return all;
}

/// The text of a token in tokenizer_config.json or special_tokens_map.json: a string, or an object
/// with `content`.
std::string token_text(const std::string& file, const char* key) {
  if (file.empty()) return "";
  const Json json = parse_json(file, "tokenizer_config.json");
  if (!json.is_object() || !json.contains(key)) return "";
  const Json& value =
      json[key].is_object() && json[key].contains("content") ? json[key]["content"] : json[key];
  return value.is_string() ? value.get<std::string>() : "";
}

/// The marker that `text` begins with behind white space: <...> or [...], else all up to the next
/// white space.
std::string first_marker(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return "";
  const char open = text[begin];
  const size_t end = open == '<'   ? text.find('>', begin)
                     : open == '[' ? text.find(']', begin)
                                   : text.find_first_of(kSpaces, begin) - 1;
  return std::string(text.substr(begin, end >= text.size() ? end : end + 1 - begin));
}

/// The one place of `part` in `text`.
std::optional<size_t> only_place(std::string_view text, std::string_view part) {
  const size_t at = text.find(part);
  if (at == std::string_view::npos || text.find(part, at + 1) != std::string_view::npos)
    return std::nullopt;
  return at;
}

struct Stretch {
  size_t begin, end;
};

std::vector<Segment> cut(const std::string& text, const std::vector<Stretch>& learned) {
  std::vector<Segment> segments;
  size_t done = 0;
  for (const Stretch& s : learned) {
    if (s.begin > done) segments.push_back({text.substr(done, s.begin - done), false});
    if (s.end > s.begin) segments.push_back({text.substr(s.begin, s.end - s.begin), true});
    done = s.end;
  }
  if (done < text.size()) segments.push_back({text.substr(done), false});
  return segments;
}

/// The end of what belongs to an answer that ends at `end`: behind the marker that ends it, if that
/// follows.
size_t behind_stop(const std::string& text, size_t end, const std::string& stop) {
  const size_t marker = text.find_first_not_of(kSpaces, end);
  const bool follows =
      !stop.empty() && marker != std::string::npos && text.compare(marker, stop.size(), stop) == 0;
  return follows ? marker + stop.size() : end;
}

/// Where answer `index` lies in `text`.
Stretch place_of_answer(const ChatTemplate& chat, const std::vector<ChatMessage>& messages,
                        size_t index, const std::string& text, bool add_generation_prompt,
                        const Json& options) {
  std::vector<ChatMessage> other = messages;
  other[index].content = kSomeAnswer;
  const std::string with_other = chat.render(other, add_generation_prompt, options);
  const auto at = only_place(with_other, kSomeAnswer);
  if (!at) {
    throw_unsupported(cat("chat: the model's template does not show message ", index,
                          " once, so what the assistant said cannot be told from the rest"));
  }
  const std::string_view before = std::string_view(with_other).substr(0, *at);
  const std::string_view behind =
      std::string_view(with_other).substr(*at + std::string_view(kSomeAnswer).size());
  // What opens an answer need not be all that is between it and the question: reasoning belongs to
  // the answer.
  std::string opening;
  try {
    const std::vector<ChatMessage> earlier(messages.begin(),
                                           messages.begin() + static_cast<ptrdiff_t>(index));
    opening = chat.render(earlier, true, options);
    if (opening == chat.render(earlier, false, options)) opening.clear();  // It opens no answers.
  } catch (const Error&) {  // Some templates refuse conversations that they would not continue.
    opening.clear();
  }
  const bool opens =
      !opening.empty() && text.starts_with(opening) && opening.size() <= before.size();
  const bool found = (opens || text.starts_with(before)) && text.ends_with(behind);
  const size_t begin = opens ? opening.size() : before.size();
  if (!found || text.size() < behind.size() || text.size() - behind.size() < begin) {
    throw_unsupported(
        cat("chat: the model's template changes other messages with what the assistant says in "
            "message ",
            index, ", so the answer's place cannot be told"));
  }
  return {begin, text.size() - behind.size()};
}

}  // namespace

struct ChatTemplate::Parsed {
  std::optional<jinja::Template> jinja;
  std::optional<Error> error;
  explicit Parsed(const std::string& source) {
    try {
      jinja.emplace(source);
    } catch (const Error& found) {
      error = found;
    }
  }
};

const ChatTemplate::Parsed& ChatTemplate::parsed() const {
  if (!parsed_)
    throw_unsupported("chat: the model has no chat template; give prompts as plain text");
  if (parsed_->error) throw Error(*parsed_->error);
  return *parsed_;
}

ChatTemplate::ChatTemplate(const std::string& source, std::string bos, std::string eos)
    : bos_(std::move(bos)), eos_(std::move(eos)) {
  if (source.empty()) return;
  parsed_ = std::make_shared<const Parsed>(source);
  stop_ = find_stop();
}

ChatTemplate ChatTemplate::from_assets(const Assets& assets) {
  const auto token = [&](const char* key) {
    const std::string text = token_text(assets.tokenizer_config_json, key);
    return text.empty() ? token_text(assets.special_tokens_map_json, key) : text;
  };
  return {assets.chat_template, token("bos_token"), token("eos_token")};
}

std::string ChatTemplate::find_stop() const {
  try {
    const std::string text =
        render({{"user", kSomeUser}, {"assistant", kSomeAnswer}, {"user", kOtherUser}}, false);
    const auto answer = only_place(text, kSomeAnswer), next = only_place(text, kOtherUser);
    if (!answer || !next || *next < *answer) return eos_;
    const size_t begin = *answer + std::string_view(kSomeAnswer).size();
    return first_marker(std::string_view(text).substr(begin, *next - begin));
  } catch (const Error&) {
    return eos_;  // A template for other conversations; what ends an answer is not known from it.
  }
}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt, const Json& options,
                                 std::time_t now) const {
  return parsed()
      .jinja->render(variables(messages, add_generation_prompt, bos_, eos_, options), {.now = now})
      .text;
}

std::string RenderedChat::text() const {
  std::string all;
  for (const Segment& segment : segments) all += segment.text;
  return all;
}

RenderedChat render_chat(const std::vector<ChatMessage>& messages,
                         const ChatTemplate& chat_template, bool add_generation_prompt,
                         const Json& options) {
  const std::string text = chat_template.render(messages, add_generation_prompt, options);
  std::vector<Stretch> learned;
  if (chat_template.parsed().jinja->has_generation()) {
    const auto rendered = chat_template.parsed().jinja->render(variables(
        messages, add_generation_prompt, chat_template.bos(), chat_template.eos(), options));
    for (const auto& [begin, end] : rendered.generation) learned.push_back({begin, end});
    return {cut(rendered.text, learned), {chat_template.stop()}};
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    Stretch place =
        place_of_answer(chat_template, messages, i, text, add_generation_prompt, options);
    place.end = behind_stop(text, place.end, chat_template.stop());
    if (!learned.empty() && place.begin < learned.back().end)
      throw_unsupported(
          cat("chat: the answers of messages up to ", i, " overlap in the model's template"));
    learned.push_back(place);
  }
  RenderedChat out{cut(text, learned), {}};
  if (!chat_template.stop().empty()) out.stops.push_back(chat_template.stop());
  return out;
}

}  // namespace slmc
