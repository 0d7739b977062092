// A conversation with a model: its chat template, its stops, and a KV cache that keeps what the
// turns share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "compress/runtime/sampler.h"
#include "formats/chat/chat.h"

namespace slmc {

/// Passes on text up to the first of some stops, holding back what may be the beginning of one.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  /// What is certain not to belong to a stop; empty once one has come.
  std::string add(const std::string& text);
  /// What was held back, at the end of an answer without a stop.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

struct ChatOptions {
  std::string system{};    ///< The first message, if the template has a place for one.
  int64_t context = 4096;  ///< Tokens of the whole conversation; the model's context bounds it too.
  int64_t most_tokens = 1024;  ///< Of one answer.
  /// One message will be answered: the context is what that needs, as some rotary embeddings follow
  /// from the length that is declared.
  bool one_answer = false;
  SamplingOptions sampling{};
  uint64_t seed = 0;        ///< Answer n (from 0) of a conversation is sampled with seed + n.
  Json template_options{};  ///< Further variables of the template.
};

class ChatSession {
 public:
  struct Answer {
    std::string text;
    int64_t prompt_tokens = 0, reused_tokens = 0, tokens = 0;  ///< Reused: kept from earlier turns.
    bool stopped = false;  ///< The model ended its answer, rather than a limit or the caller.
    double prefill_seconds = 0, decode_seconds = 0;
  };
  /// Keeps references. Throws Error(kUnsupported) if the model has no chat template or one that is
  /// not understood.
  ChatSession(const Model& model, const Decoder& decoder, ChatOptions options);

  /// Adds the user's message and the model's answer to the conversation. `on_text` is given the
  /// answer as it comes and returns false to stop it; what has come by then stays in the
  /// conversation. Throws Error(kUsage), and leaves the conversation as it was, when it would not
  /// fit the context.
  Answer say(const std::string& message, const std::function<bool(const std::string&)>& on_text);
  /// Forgets the conversation, but for the system message.
  void reset();
  const std::vector<ChatMessage>& messages() const { return messages_; }

 private:
  void answer(const std::vector<int32_t>& prompt,
              const std::function<bool(const std::string&)>& on_text, Answer& out);

  const Model& model_;
  const Decoder& decoder_;
  ChatOptions options_;
  ChatTemplate template_;
  std::vector<int32_t> stops_;
  std::vector<ChatMessage> messages_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> cached_;  // The ids that the cache holds.
  uint64_t turn_ = 0;
};

}  // namespace slmc
