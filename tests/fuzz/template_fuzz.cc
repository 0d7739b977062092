// Any bytes as a chat template: an Error, or a text, within the limits on steps.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "compress/core/error.h"
#include "formats/chat/jinja.h"
#include "formats/tokenizer/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const slmc::Json messages = {{{"role", "user"}, {"content", "Hi"}},
                               {{"role", "assistant"}, {"content", "<think>a</think>b"}}};
  try {
    const slmc::jinja::Template chat(source);
    chat.render({{"messages", messages},
                 {"add_generation_prompt", true},
                 {"tools", nullptr},
                 {"bos_token", "<s>"}},
                {.now = 0, .most_steps = 20'000});
  } catch (const slmc::Error& error) {
    if (error.code() == slmc::ExitCode::kBug) throw;
  }
  return 0;
}
