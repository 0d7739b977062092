#include "compress/core/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "compress/core/error.h"

namespace slmc {
namespace {

// Three significant digits, without trailing zeros beyond the point being forced.
std::string three_digits(double value) {
  if (value >= 100) return fmt::format("{:.0f}", value);
  if (value >= 10) return fmt::format("{:.1f}", value);
  return fmt::format("{:.2f}", value);
}

// Columns that a terminal gives to a UTF-8 text, counting one a code point.
size_t display_width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

}  // namespace

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += separator;
    out += parts[i];
  }
  return out;
}

std::string human_bytes(uint64_t bytes) {
  if (bytes < 1000) return cat(bytes, " B");
  static constexpr std::array<const char*, 5> kUnits = {"kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) value /= 1000, ++unit;
  return cat(three_digits(value), " ", kUnits[unit]);
}

std::string human_count(uint64_t count) {
  if (count < 1000) return cat(count);
  static constexpr std::array<const char*, 4> kUnits = {"k", "M", "B", "T"};
  double value = static_cast<double>(count) / 1000;
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) value /= 1000, ++unit;
  return cat(three_digits(value), kUnits[unit]);
}

std::string human_seconds(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return cat(whole, " s");
  if (whole < 3600) return cat(whole / 60, " min ", whole % 60, " s");
  return cat(whole / 3600, " h ", (whole % 3600) / 60, " min");
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += cat(i > 0 ? ", " : "", shape[i]);
  return out + "]";
}

uint64_t parse_bytes(std::string_view text, const std::string& option) {
  const auto fail = [&] {
    throw_usage(cat("--", option, ": '", text,
                    "' is not a size; expected something like 700MB, 1.5GiB or 123456"));
  };
  double number = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  unit.erase(0, unit.find_first_not_of(' ') == std::string::npos ? unit.size()
                                                                 : unit.find_first_not_of(' '));
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (status != std::errc() || !std::isfinite(number) || number < 0) fail();
  static const std::vector<std::pair<std::string, double>> kUnits = {{"", 1},
                                                                     {"B", 1},
                                                                     {"K", 1e3},
                                                                     {"KB", 1e3},
                                                                     {"M", 1e6},
                                                                     {"MB", 1e6},
                                                                     {"G", 1e9},
                                                                     {"GB", 1e9},
                                                                     {"T", 1e12},
                                                                     {"TB", 1e12},
                                                                     {"KIB", 1024.0},
                                                                     {"MIB", 1048576.0},
                                                                     {"GIB", 1073741824.0},
                                                                     {"TIB", 1099511627776.0}};
  for (const auto& [name, factor] : kUnits) {
    if (unit == name && number * factor < 9e18)
      return static_cast<uint64_t>(std::llround(number * factor));
  }
  fail();
  return 0;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    // Levenshtein distance with one row.
    std::vector<size_t> row(candidate.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const size_t above = row[j];
        row[j] = std::min(
            {above + 1, row[j - 1] + 1, diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1)});
        diagonal = above;
      }
    }
    if (row.back() < best_distance) best_distance = row.back(), best = candidate;
  }
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string best = nearest(word, candidates);
  return best.empty() ? "" : cat("; did you mean '", best, "'?");
}

std::string fixed(double value, int digits) { return fmt::format("{:.{}f}", value, digits); }

std::string table(const std::vector<std::string>& header,
                  const std::vector<std::vector<std::string>>& rows,
                  const std::vector<bool>& right_align) {
  std::vector<size_t> widths(header.size());
  for (size_t c = 0; c < header.size(); ++c) {
    widths[c] = display_width(header[c]);
    for (const auto& row : rows) {
      if (c < row.size()) widths[c] = std::max(widths[c], display_width(row[c]));
    }
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t c = 0; c < header.size(); ++c) {
      const std::string cell = c < cells.size() ? cells[c] : "";
      const std::string padding(widths[c] - display_width(cell), ' ');
      if (c > 0) text += "  ";
      text += c < right_align.size() && right_align[c] ? padding + cell : cell + padding;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  line(header);
  std::vector<std::string> rule;
  for (const size_t width : widths) rule.emplace_back(width, '-');
  line(rule);
  for (const auto& row : rows) line(row);
  return out;
}

}  // namespace slmc
