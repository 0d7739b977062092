#include "compress/runtime/chat_session.h"

#include <algorithm>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/tasks_run.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {

std::string StopFilter::add(const std::string& text) {
  if (stopped_) return "";
  held_ += text;
  size_t first = std::string::npos, possible = held_.size();
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    first = std::min(first, held_.find(stop));
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > 0; --length) {
      if (!held_.ends_with(std::string_view(stop).substr(0, length))) continue;
      possible = std::min(possible, held_.size() - length);
      break;
    }
  }
  stopped_ = first != std::string::npos;
  const size_t end = stopped_ ? first : possible;
  std::string out = held_.substr(0, end);
  held_.erase(0, end);
  return out;
}

std::string StopFilter::finish() { return stopped_ ? "" : std::exchange(held_, ""); }

ChatSession::ChatSession(const Model& model, const Decoder& decoder, ChatOptions options)
    : model_(model),
      decoder_(decoder),
      options_(std::move(options)),
      template_(ChatTemplate::from_assets(model.assets())),
      stops_(stop_ids(model)) {
  options_.context = std::min(options_.context, model.arch().context);
  const int32_t marker = model.tokenizer().token_id(template_.stop());
  if (marker >= 0) stops_.push_back(marker);
  if (!options_.one_answer) cache_ = decoder.new_cache(options_.context);
  reset();
  template_.render({{"user", "Hello."}}, true,
                   options_.template_options);  // Understood, or an error now.
}

void ChatSession::reset() {
  messages_.clear();
  turn_ = 0;
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
}

ChatSession::Answer ChatSession::say(const std::string& message,
                                     const std::function<bool(const std::string&)>& on_text) {
  messages_.push_back({"user", message});
  Answer out;
  try {
    const std::string text = template_.render(messages_, true, options_.template_options);
    const std::vector<int32_t> prompt = model_.tokenizer().encode(text, false);
    if (static_cast<int64_t>(prompt.size()) >= options_.context) {
      throw_usage(cat("the conversation has ", prompt.size(), " tokens, the context ",
                      options_.context, "; begin anew (/reset) or give a larger --context"));
    }
    if (options_.one_answer)
      options_.context = std::min(options_.context,
                                  std::ssize(prompt) + std::max<int64_t>(1, options_.most_tokens));
    if (!cache_) cache_ = decoder_.new_cache(options_.context);
    answer(prompt, on_text, out);
  } catch (const Error&) {
    messages_.pop_back();
    throw;
  }
  messages_.push_back({"assistant", out.text});
  ++turn_;
  return out;
}

void ChatSession::answer(const std::vector<int32_t>& prompt,
                         const std::function<bool(const std::string&)>& on_text, Answer& out) {
  const auto same =
      std::mismatch(cached_.begin(), cached_.end(), prompt.begin(), prompt.end()).first;
  // The last token is always run: its logits are needed.
  const auto kept = std::min(static_cast<size_t>(same - cached_.begin()), prompt.size() - 1);
  cached_.resize(kept);
  cache_->truncate(static_cast<int64_t>(kept));
  out.prompt_tokens = static_cast<int64_t>(prompt.size());
  out.reused_tokens = static_cast<int64_t>(kept);
  std::vector<float> logits(static_cast<size_t>(decoder_.arch().vocab));
  double mark = now_seconds();
  decoder_.forward(*cache_, std::span(prompt).subspan(kept), logits.data(), true);
  cached_ = prompt;
  out.prefill_seconds = now_seconds() - mark;

  mark = now_seconds();
  Random random(options_.seed + turn_);
  StreamDecoder stream(model_.tokenizer(), true);
  StopFilter filter({template_.stop()});
  bool wanted = true;
  const auto show = [&](const std::string& text) {
    out.text += text;
    if (wanted && !text.empty()) wanted = on_text(text);
  };
  const int64_t room = std::min(options_.most_tokens, options_.context - out.prompt_tokens);
  std::vector<int32_t> history = prompt;
  while (out.tokens < room && wanted && !filter.stopped() && !out.stopped) {
    const int32_t id = sample_token(logits, history, options_.sampling, random);
    out.stopped = std::find(stops_.begin(), stops_.end(), id) != stops_.end();
    if (out.stopped) break;
    ++out.tokens;
    history.push_back(id);
    show(filter.add(stream.add(id)));
    if (!wanted || filter.stopped() || out.tokens == room) break;
    decoder_.forward(*cache_, {&id, 1}, logits.data(), true);
    cached_.push_back(id);
  }
  show(filter.add(stream.finish()));
  show(filter.finish());
  out.stopped = out.stopped || filter.stopped();
  out.decode_seconds = now_seconds() - mark;
}

}  // namespace slmc
