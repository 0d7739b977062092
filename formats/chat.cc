#include "formats/chat.h"

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr std::string_view kSpaces = " \t\n\r";

// A chat template is Jinja source, where line ends inside strings are written "\n"; reading both
// spellings makes markers comparable.
std::string with_real_newlines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == 'n') {
      out += '\n';
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpaces);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpaces) - first + 1);
}

bool contains_all(std::string_view text, const std::vector<std::string_view>& parts) {
  for (const std::string_view part : parts)
    if (text.find(part) == std::string_view::npos) return false;
  return true;
}

bool contains_any(std::string_view text, const std::vector<std::string_view>& parts) {
  for (const std::string_view part : parts)
    if (text.find(part) != std::string_view::npos) return true;
  return false;
}

std::vector<ChatFormat> make_formats() {
  std::vector<ChatFormat> formats;
  formats.push_back({.name = "chatml",
                     .markers = {"<|im_start|>", "<|im_end|>"},
                     .foreign = {"<think>", "<|im_sep|>"},
                     .system = {"<|im_start|>system\n", "<|im_end|>\n"},
                     .user = {"<|im_start|>user\n", "<|im_end|>\n"},
                     .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},
                     .generation = "<|im_start|>assistant\n",
                     .stop = "<|im_end|>"});
  // Llama 3.1 and later put today's date into a system turn of their own.
  formats.push_back(
      {.name = "llama-3",
       .markers = {"<|start_header_id|>", "<|eot_id|>"},
       .foreign = {"date_string", "strftime_now"},
       .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
       .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
       .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
       .generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
       .stop = "<|eot_id|>",
       .trims = true});
  formats.push_back({.name = "phi-3",
                     .markers = {"<|user|>\n", "<|assistant|>\n", "<|end|>\n"},
                     .foreign = {"<|tool|>", "strftime_now"},
                     .system = {"<|system|>\n", "<|end|>\n"},
                     .user = {"<|user|>\n", "<|end|>\n"},
                     .assistant = {"<|assistant|>\n", "<|end|>\n"},
                     .generation = "<|assistant|>\n",
                     .stop = "<|end|>"});
  formats.push_back({.name = "zephyr",
                     .markers = {"<|user|>\n", "<|assistant|>", "eos_token"},
                     .foreign = {"<|end|>", "<think>", "<|observation|>"},
                     .system = {"<|system|>\n", "</s>\n"},
                     .user = {"<|user|>\n", "</s>\n"},
                     .assistant = {"<|assistant|>\n", "</s>\n"},
                     .generation = "<|assistant|>\n",
                     .stop = "</s>"});
  formats.push_back({.name = "llama-2",
                     .markers = {"[INST]", "[/INST]", "<<SYS>>"},
                     .foreign = {},
                     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
                     .user = {"<s>[INST] ", " [/INST]"},
                     .assistant = {" ", " </s>"},
                     .generation = "",
                     .stop = "</s>",
                     .trims = true,
                     .system_in_user = true,
                     .first_begin = "[INST] "});
  formats.push_back({.name = "gemma",
                     .markers = {"<start_of_turn>", "<end_of_turn>"},
                     .foreign = {"image_token", "<start_of_image>"},
                     .system = {},
                     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
                     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
                     .generation = "<start_of_turn>model\n",
                     .stop = "<end_of_turn>",
                     .trims = true,
                     .has_system = false});
  return formats;
}

std::string format_names() {
  std::vector<std::string> names;
  for (const ChatFormat& format : chat_formats()) names.emplace_back(format.name);
  return join(names, ", ");
}

// Appends to the last segment when it is learned alike, so that a tokenizer sees whole pieces.
void append(std::vector<Segment>& segments, std::string_view text, bool learned) {
  if (text.empty()) return;
  if (!segments.empty() && segments.back().learned == learned) {
    segments.back().text += text;
  } else {
    segments.push_back({std::string(text), learned});
  }
}

void append_answer(const ChatFormat& format, std::string_view content,
                   std::vector<Segment>& segments) {
  const std::string_view end = format.assistant.end;
  const size_t learned_end = end.find(format.stop) + format.stop.size();
  append(segments, format.assistant.begin, false);
  append(segments, content, true);
  append(segments, end.substr(0, learned_end), true);
  append(segments, end.substr(learned_end), false);
}

[[noreturn]] void no_system(const ChatFormat& format) {
  throw_unsupported(cat("chat: the format '", format.name,
                        "' has no system turn; put that text into the first user message"));
}

// Messages with the template's own system text in front where the conversation has none.
std::vector<ChatMessage> completed(const std::vector<ChatMessage>& messages,
                                   std::string_view chat_template) {
  std::vector<ChatMessage> all = messages;
  if (all.empty() || all.front().role != "system") {
    const std::string system = default_system_prompt(chat_template);
    if (!system.empty()) all.insert(all.begin(), {"system", system});
  }
  return all;
}

}  // namespace

const std::vector<ChatFormat>& chat_formats() {
  static const std::vector<ChatFormat> formats = make_formats();
  return formats;
}

const ChatFormat& chat_format_of(std::string_view chat_template) {
  if (chat_template.empty())
    throw_unsupported("chat: the model has no chat template; give prompts as plain text");
  const std::string text = with_real_newlines(chat_template);
  for (const ChatFormat& format : chat_formats())
    if (contains_all(text, format.markers) && !contains_any(text, format.foreign)) return format;
  throw_unsupported(cat("chat: the model's chat template is none of the known formats (",
                        format_names(),
                        "); give prompts as plain text, with the model's own markers"));
}

std::string default_system_prompt(std::string_view chat_template) {
  const std::string text = with_real_newlines(chat_template);
  const std::string_view opening = "<|im_start|>system\n";
  for (size_t at = text.find(opening); at != std::string::npos; at = text.find(opening, at + 1)) {
    const size_t begin = at + opening.size();
    const size_t end = text.find("<|im_end|>", begin);
    // A quote before the end marker means that the template goes on with a variable: no text of its
    // own.
    if (end != std::string::npos && end > begin &&
        text.substr(begin, end - begin).find_first_of("'\"{") == std::string::npos)
      return text.substr(begin, end - begin);
  }
  return "";
}

std::string RenderedChat::text() const {
  std::string all;
  for (const Segment& segment : segments) all += segment.text;
  return all;
}

RenderedChat render_chat(const std::vector<ChatMessage>& messages, std::string_view chat_template,
                         bool add_generation_prompt) {
  const ChatFormat& format = chat_format_of(chat_template);
  RenderedChat out;
  out.stops.emplace_back(format.stop);
  std::string pending_system;  // For formats that put it inside the first user turn.
  bool first = true;
  for (const ChatMessage& message : completed(messages, chat_template)) {
    const std::string_view content =
        format.trims ? trimmed(message.content) : std::string_view(message.content);
    if (message.role == "system") {
      if (!format.has_system) no_system(format);
      if (format.system_in_user) {
        pending_system = cat(format.system.begin, content, format.system.end);
      } else {
        append(out.segments, cat(format.system.begin, content, format.system.end), false);
      }
    } else if (message.role == "user") {
      const std::string_view begin =
          first && !format.first_begin.empty() ? format.first_begin : format.user.begin;
      append(out.segments, cat(begin, pending_system, content, format.user.end), false);
      pending_system.clear();
      first = false;
    } else if (message.role == "assistant") {
      append_answer(format, content, out.segments);
    } else {
      throw_bad_input(
          cat("chat: unknown role '", message.role, "'; expected system, user or assistant"));
    }
  }
  if (add_generation_prompt) append(out.segments, format.generation, false);
  return out;
}

}  // namespace slmc
