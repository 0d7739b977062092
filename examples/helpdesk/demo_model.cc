#include "examples/helpdesk/demo_model.h"

#include <algorithm>

#include "compress/core/system.h"
#include "compress/runtime/sampler.h"
#include "compress/runtime/tasks_run.h"
#include "formats/chat/chat.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc::helpdesk {

DemoModel::DemoModel(const std::string& path)
    : model_(Model::open(path)), decoder_(Decoder::create(*model_, Activations::kQ8)) {}

std::string DemoModel::answer(const std::string& message) const {
  const ChatTemplate chat = ChatTemplate::from_assets(model_->assets());
  const std::vector<int32_t> prompt =
      model_->tokenizer().encode(chat.render({{"user", message}}, true), false);
  const GenerationResult result = generate(*decoder_, prompt, 120, stop_ids(*model_), {}, 0,
                                           [](int32_t) { return !interrupted(); });
  return model_->tokenizer().decode(result.ids);
}

double DemoModel::tokens_per_second(int repeats, int64_t tokens) const {
  const std::vector<int32_t> prompt = model_->tokenizer().encode("<|im_start|>user\nHello.");
  double best = 0;
  for (int i = 0; i < repeats && !interrupted(); ++i) {
    const GenerationResult result =
        generate(*decoder_, prompt, tokens, {}, {}, 0, [](int32_t) { return !interrupted(); });
    if (result.decode_seconds > 0)
      best = std::max(best, static_cast<double>(result.ids.size() - 1) / result.decode_seconds);
  }
  return best;
}

}  // namespace slmc::helpdesk
