#include "formats/layer_choice.h"

#include <algorithm>
#include <charconv>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

std::vector<int64_t> evenly_spaced_layers(int64_t layers, int64_t count) {
  SLMC_CHECK(count >= 1 && count <= layers, cat(count, " of ", layers, " layers"));
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < count; ++i)
    chosen.push_back(count == 1 ? 0 : (2 * i * (layers - 1) + (count - 1)) / (2 * (count - 1)));
  return chosen;
}

std::vector<int64_t> parse_layer_list(const std::string& what, const std::string& text,
                                      int64_t layers) {
  std::vector<int64_t> chosen;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    int64_t layer = -1;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, layer);
    const bool whole = error == std::errc() && stop == text.data() + end;
    if (!whole || layer < 0 || layer >= layers || (!chosen.empty() && layer <= chosen.back()))
      throw_usage(cat(what, " '", text, "': expected ascending layer numbers from 0 to ",
                      layers - 1, ", such as 0,2,5; found '", text.substr(begin, end - begin),
                      "'"));
    chosen.push_back(layer);
    begin = end + 1;
  }
  return chosen;
}

}  // namespace slmc
