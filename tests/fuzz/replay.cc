// Runs a fuzz target over files and folders without libFuzzer: each file as it is, cut at every
// byte of its beginning, and with every byte of its beginning changed in four ways; further in, at
// a sample of the bytes. Ends by a signal or a non-zero status if the target fails.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kBeginning = 1024;  // Every byte.
constexpr size_t kHeader = 16384;  // Every 13th byte from there on, then every 997th; odd, so that
                                   // all parts of numbers are met.

size_t step(size_t at) { return at < kBeginning ? 1 : at < kHeader ? 13 : 997; }

void run(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

size_t replay(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  run(whole);
  size_t runs = 1;
  for (size_t size = 0; size < whole.size(); size += step(size), ++runs) run(whole.substr(0, size));
  std::string changed = whole;
  for (size_t at = 0; at < whole.size(); at += step(at)) {
    for (const char value :
         {static_cast<char>(whole[at] ^ 1), static_cast<char>(whole[at] ^ 0x80), '\0', '\xff'}) {
      changed[at] = value;
      run(changed);
      ++runs;
    }
    changed[at] = whole[at];
  }
  return runs;
}

}  // namespace

int main(int count, char** arguments) {
  size_t files = 0, runs = 0;
  for (int i = 1; i < count; ++i) {
    std::vector<std::filesystem::path> paths;
    if (std::filesystem::is_directory(arguments[i])) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(arguments[i])) {
        if (entry.is_regular_file()) paths.push_back(entry.path());
      }
    } else {
      paths.emplace_back(arguments[i]);
    }
    for (const auto& path : paths) runs += replay(path), ++files;
  }
  std::printf("%zu files, %zu inputs\n", files, runs);
  return files == 0 ? 1 : 0;
}
