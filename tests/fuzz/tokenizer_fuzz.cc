// libFuzzer target: the bytes before the first NUL are a tokenizer.json, those behind it a text.
// Any file may be refused with an Error; one that is accepted must encode and decode without a
// crash, and streaming must give the decoded text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "compress/core/error.h"
#include "formats/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  const std::string_view json = input.substr(0, split);
  const std::string_view text =
      split == std::string_view::npos ? std::string_view("the \xff text") : input.substr(split + 1);
  try {
    const auto tokenizer = slmc::Tokenizer::from_json(json, slmc::Json(), "fuzz");
    const std::vector<int32_t> ids = tokenizer->encode(text);
    slmc::StreamDecoder stream(*tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
      streamed += stream.add(id);
      tokenizer->token_bytes(id);
    }
    streamed += stream.finish();
    if (streamed != tokenizer->decode(ids)) std::abort();
  } catch (const slmc::Error&) {
  }
  return 0;
}
