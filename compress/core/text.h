// Building and comparing short texts. `cat` is what files that include LibTorch use in place of fmt
// (the wheel ships its own fmt).
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace slmc {

/// Concatenates anything that has an operator<<.
template <typename... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

std::string join(const std::vector<std::string>& parts, std::string_view separator);
/// "1.5 MB": decimal units, three significant digits.
std::string human_bytes(uint64_t bytes);
/// "8.39M", "1.24B".
std::string human_count(uint64_t count);
/// "3 min 20 s", "45 s", "0.3 s".
std::string human_seconds(double seconds);
/// "[256, 768]".
std::string shape_text(const std::vector<int64_t>& shape);
/// "700MB", "1.5GiB", "1234" -> bytes. Throws Error(kUsage) naming `option`.
uint64_t parse_bytes(std::string_view text, const std::string& option);
/// The candidate with the smallest edit distance to `word`, or "" when none is near (distance >
/// max(2, |word|/3)).
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);
/// "; did you mean 'x'?" or "".
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);
/// Fixed notation with `digits` after the point.
std::string fixed(double value, int digits);
/// Left- or right-padded table with a header rule. `right_align[c]` per column.
std::string table(const std::vector<std::string>& header,
                  const std::vector<std::vector<std::string>>& rows,
                  const std::vector<bool>& right_align);

}  // namespace slmc
