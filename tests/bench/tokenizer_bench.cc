// slmc_tokenizer_bench FOLDER...: milliseconds to encode a megabyte of one repeated text, for texts
// on which tokenizers are known to slow down, and of a file's worth of ordinary words.
#include <chrono>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/error.h"
#include "formats/tokenizer/tokenizer.h"

int main(int count, char** arguments) {
  const std::vector<std::pair<const char*, std::string>> units = {
      {"a", "a"},
      {"space", " "},
      {"newline", "\n"},
      {"!", "!"},
      {"1", "1"},
      {"e-acute", "\xc3\xa9"},
      {"chinese", "\xe4\xb8\xad"},
      {"mark", "\xcc\x81"},
      {"emoji", "\xf0\x9f\x99\x82"},
      {"underscore-block", "\xe2\x96\x81"},
      {"unassigned", "\xcd\xb8"},
      {"ab", "ab"},
      {"words", "the oven door does not close and "}};
  try {
    for (int i = 1; i < count; ++i) {
      const auto tokenizer = slmc::Tokenizer::open(arguments[i]);
      std::printf("%s:", arguments[i]);
      for (const auto& [name, unit] : units) {
        std::string text;
        while (text.size() < 1'000'000) text += unit;
        const auto start = std::chrono::steady_clock::now();
        const size_t ids = tokenizer->encode(text, false).size();
        const std::chrono::duration<double, std::milli> took =
            std::chrono::steady_clock::now() - start;
        std::printf(" %s %.0f ms (%zu ids),", name, took.count(), ids);
        std::fflush(stdout);
      }
      std::printf("\n");
    }
  } catch (const slmc::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
