#include "examples/helpdesk/conversation.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "examples/helpdesk/phrases.h"
#include "examples/helpdesk/typing.h"

namespace slmc::helpdesk {
namespace {

constexpr std::string_view kUserBegin = "<|im_start|>user\n";
constexpr std::string_view kAgentBegin = "<|im_start|>assistant\n";
constexpr std::string_view kEnd = "<|im_end|>";

std::string text_of(const Pieces& pieces) {
  std::string text;
  for (const Piece& piece : pieces) text += piece.text;
  return text;
}

/// The values of one conversation, made when a pattern first asks for them.
class Values {
 public:
  Values(Random& random, Split split)
      : random_(random), split_(split), product_(random_product(random, split)) {}

  Piece operator()(std::string_view name) {
    if (name.starts_with("other_") || name == "shop" || name == "first_name")
      return {other(name), "", true};
    if (name == "product") {
      // A product that training named may be mistyped and is still recognised; an unseen one can
      // only be copied.
      return {product_.name, "product", product_.unseen || chance(random_, 0.5)};
    }
    if (name == "problem") return {problem(), "problem", false};
    return {copied(name), std::string(name), true};
  }

  /// What the answer says for a value that was written as `written`.
  std::string label(const std::string& slot, const std::string& written) const {
    if (slot == "product") return product_.name;
    if (slot == "problem") return std::string(fault_->label);
    return written;
  }
  bool danger() const { return fault_ != nullptr && fault_->danger; }

 private:
  std::string make(std::string_view name) {
    if (name == "brand") return random_brand(random_, split_);
    if (name == "model") return random_model(random_);
    if (name == "order") return random_order(random_);
    if (name == "date") return random_date(random_);
    if (name == "amount") return random_amount(random_);
    if (name == "city") return random_city(random_, split_);
    if (name == "email") return random_email(random_, split_);
    if (name == "code") return random_code(random_);
    if (name == "error") return random_error(random_);
    if (name == "part") return random_part(random_, product_.kind);
    if (name == "method") return random_payment_method(random_);
    if (name == "shop") return random_shop(random_, split_);
    if (name == "first_name") return random_first_name(random_, split_);
    SLMC_CHECK(false, cat("no value is called '", name, "'"));
    return "";
  }

  std::string copied(std::string_view name) {
    std::string& value = made_[std::string(name)];
    if (value.empty()) value = make(name);
    return value;
  }

  // A value of the same kind that is not the request's.
  std::string other(std::string_view name) {
    if (!name.starts_with("other_")) return make(name);
    const std::string_view kind = name.substr(6);
    if (kind == "product") {
      for (;;) {
        const Product product = random_product(random_, split_);
        if (product.name != product_.name) return product.name;
      }
    }
    for (;;) {
      std::string value = make(kind);
      if (value != copied(kind)) return value;
    }
  }

  std::string problem() {
    if (fault_ == nullptr) fault_ = &random_fault(random_, product_.kind);
    const bool unseen = split_ == Split::kTest && chance(random_, 0.5);
    return text_of(
        expand(choose(unseen ? fault_->said_in_test : fault_->said, random_), random_, *this));
  }

  Random& random_;
  Split split_;
  Product product_;
  const Fault* fault_ = nullptr;
  std::map<std::string, std::string> made_;
};

/// Builds one conversation sentence by sentence.
class Writer {
 public:
  Writer(Random& random, Split split) : random_(random), split_(split), values_(random, split) {}

  Conversation write() {
    pick_request();
    const bool two_turns = chance(random_, 0.10);
    if (chance(random_, 0.5)) say(pick(around().openers, around().openers_in_test));
    say_other_request(true);
    if (chance(random_, 0.14)) say(pick(around().digressions, around().digressions_in_test));
    say(request_);
    std::string prompt;
    if (two_turns)
      prompt = turn() + cat(kAgentBegin, choose(around().questions, random_), kEnd, "\n");
    say_details(two_turns);
    if (chance(random_, 0.10)) say(pick(around().digressions, around().digressions_in_test));
    const bool urgent = chance(random_, 0.12);
    if (urgent) say(pick(around().urgent, around().urgent_in_test));
    say_other_request(false);
    if (chance(random_, 0.4)) say(pick(around().closers, around().closers_in_test));
    prompt += turn();
    return answer(prompt, urgent);
  }

 private:
  std::string_view pick(const Patterns& usual, const Patterns& in_test) {
    return choose(split_ == Split::kTest && chance(random_, 0.5) ? in_test : usual, random_);
  }

  void say(std::string_view pattern) {
    sentences_.push_back(
        expand(pattern, random_, [this](std::string_view name) { return values_(name); }));
    for (const Piece& piece : sentences_.back())
      if (!piece.slot.empty()) mentioned_.push_back(piece.slot);
  }

  void pick_request() {
    intent_ = &choose(intents(), random_);
    if (chance(random_, 0.03)) {
      const Ambiguous& both = choose(ambiguous_requests(), random_);
      const std::string_view name = chance(random_, both.probability) ? both.likely : both.other;
      intent_ = &*std::find_if(intents().begin(), intents().end(),
                               [&](const Intent& intent) { return intent.name == name; });
      request_ = both.ask;
      out_.ambiguous = true;
      return;
    }
    out_.new_wording = split_ == Split::kTest && chance(random_, 0.5);
    request_ = choose(out_.new_wording ? intent_->asks_in_test : intent_->asks, random_);
  }

  // Something that is not the request: put off or refused before it, or added after it.
  void say_other_request(bool before) {
    if (out_.ambiguous) return;
    const double kind = random_.uniform();
    std::string_view pattern;
    if (before && kind < 0.08) pattern = pick(around().later, around().later_in_test);
    if (!before && kind < 0.10) pattern = pick(around().added, around().added_in_test);
    if (!before && kind >= 0.10 && kind < 0.17)
      pattern = pick(around().refused, around().refused_in_test);
    if (pattern.empty()) return;
    const Intent* other = intent_;
    while (other == intent_) other = &choose(intents(), random_);
    const std::string_view also = choose(other->also, random_);
    sentences_.push_back(
        expand(pattern, random_, [&](std::string_view) { return Piece{std::string(also)}; }));
  }

  bool was_mentioned(const std::string& slot) const {
    return std::find(mentioned_.begin(), mentioned_.end(), slot) != mentioned_.end();
  }

  // Further values, each at most once; a second turn consists of at least one.
  void say_details(bool at_least_one) {
    if (out_.ambiguous && !at_least_one) return;
    const double count = random_.uniform();
    int left =
        (count < 0.5 ? 1 : 0) + (count < 0.2 ? 1 : 0) + (at_least_one && count >= 0.5 ? 1 : 0);
    std::vector<std::string_view> keys = intent_->details;
    if (out_.ambiguous) keys = {"order", "product", "brand_model"};
    while (left > 0 && !keys.empty()) {
      const size_t at = random_.below(keys.size());
      const std::string_view key = keys[at];
      keys.erase(keys.begin() + static_cast<std::ptrdiff_t>(at));
      if (say_detail(key)) --left;
    }
  }

  bool say_detail(std::string_view key) {
    for (const Detail& detail : detail_sentences()) {
      if (detail.key != key) continue;
      const std::string_view pattern = pick(detail.said, detail.said_in_test);
      for (const std::string& name : names_in(pattern))
        if (was_mentioned(name)) return false;
      say(pattern);
      return true;
    }
    SLMC_CHECK(false, cat("no detail sentence '", key, "'"));
    return false;
  }

  // Ends the customer's turn: the sentences so far become text, and their values labels.
  std::string turn() {
    if (!style_) style_ = random_style(random_);
    if (sentences_.empty()) say("that's all");
    const std::string message = write_message(sentences_, *style_, random_);
    for (const Pieces& sentence : sentences_)
      for (const Piece& piece : sentence)
        if (!piece.slot.empty()) labels_.emplace(piece.slot, values_.label(piece.slot, piece.text));
    sentences_.clear();
    return cat(kUserBegin, message, kEnd, "\n");
  }

  Conversation answer(const std::string& prompt, bool urgent) {
    if (urgent) labels_["urgency"] = "high";
    labels_["intent"] = std::string(intent_->name);
    for (const std::string_view name : field_names())
      if (const auto found = labels_.find(std::string(name)); found != labels_.end())
        out_.fields.emplace_back(found->first, found->second);
    out_.prompt = cat(prompt, kAgentBegin);
    for (const auto& [name, value] : out_.fields) out_.response += cat(name, ": ", value, "\n");
    out_.response += cat("\n", reply(urgent), kEnd);  // The blank line ends the values.
    return out_;
  }

  std::string reply(bool urgent) {
    std::vector<std::string_view> fitting;
    for (const std::string_view pattern : intent_->replies) {
      const auto names = names_in(pattern);
      if (std::all_of(names.begin(), names.end(),
                      [&](const std::string& name) { return labels_.count(name) > 0; }))
        fitting.push_back(pattern);
    }
    std::string text;
    if (labels_.count("problem") > 0 && values_.danger()) text = "Please unplug it at once. ";
    text += text_of(expand(choose(fitting, random_), random_, [&](std::string_view name) {
      return Piece{labels_.at(std::string(name))};
    }));
    return text + (urgent ? " I have marked this as urgent." : "");
  }

  Random& random_;
  Split split_;
  Values values_;
  const Intent* intent_ = nullptr;
  std::string_view request_;
  std::vector<Pieces> sentences_;
  std::vector<std::string> mentioned_;
  std::map<std::string, std::string> labels_;
  std::optional<TypingStyle> style_;
  Conversation out_;
};

}  // namespace

const std::vector<std::string_view>& field_names() {
  static const std::vector<std::string_view> names = {
      "intent", "product", "brand",  "model", "problem", "error", "part",   "order",
      "date",   "amount",  "method", "code",  "email",   "city",  "urgency"};
  return names;
}

Conversation make_conversation(uint64_t seed, Split split, uint64_t index) {
  Random mix(seed * 2 + (split == Split::kTest ? 1 : 0));
  Random random(mix.next() ^ (index * 0x9e3779b97f4a7c15ull));
  random.next();
  return Writer(random, split).write();
}

}  // namespace slmc::helpdesk
