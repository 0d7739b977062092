// The page of `slmc compare --html`: a plot in inline SVG and the table, readable without a
// network.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "compress/core/text.h"
#include "compress/runtime/evaluate_comparison.h"

namespace slmc {
namespace {

constexpr double kWidth = 760, kHeight = 420, kLeft = 80, kRight = 24, kTop = 20, kBottom = 52;

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// The last part of a path is enough beside a point.
std::string short_name(const std::string& name) {
  const size_t end = name.find_last_not_of('/');
  if (end == std::string::npos) return name;
  const size_t slash = name.find_last_of('/', end);
  return name.substr(slash == std::string::npos ? 0 : slash + 1,
                     end + 1 - (slash == std::string::npos ? 0 : slash + 1));
}

/// A logarithmic axis from `low` to `high`, mapped to [begin, end] of the picture.
struct Axis {
  double low, high, begin, end;
  double at(double value) const {
    return begin + (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low)) *
                       (end - begin);
  }
  // 1, 2 and 5 times powers of ten inside the range.
  std::vector<double> ticks() const {
    std::vector<double> result;
    for (int exponent = static_cast<int>(std::floor(std::log10(low)));
         exponent <= static_cast<int>(std::ceil(std::log10(high))); ++exponent) {
      for (double step : {1.0, 2.0, 5.0}) {
        const double value = step * std::pow(10.0, exponent);
        if (value >= low && value <= high) result.push_back(value);
      }
    }
    return result;
  }
};

Axis make_axis(const std::vector<double>& values, double begin, double end) {
  const double low = *std::min_element(values.begin(), values.end()),
               high = *std::max_element(values.begin(), values.end());
  const double air = std::max(1.25, std::pow(high / low, 0.12));
  return {low / air, high * air, begin, end};
}

std::string tick_text(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%g", value);
  return text.data();
}

struct Point {
  double size = 0, value = 0, error = 0;
  std::string name;
};

std::string plot(const std::vector<Point>& points, const std::string& quantity) {
  std::vector<double> sizes, values;
  for (const Point& point : points) sizes.push_back(point.size), values.push_back(point.value);
  const Axis x = make_axis(sizes, kLeft, kWidth - kRight),
             y = make_axis(values, kHeight - kBottom, kTop);
  std::string svg = cat("<svg viewBox=\"0 0 ", kWidth, " ", kHeight,
                        "\" role=\"img\" aria-label=\"Size against ", escaped(quantity), "\">\n");
  for (double tick : x.ticks()) {
    svg += cat("<line class=\"grid\" x1=\"", fixed(x.at(tick), 1), "\" x2=\"", fixed(x.at(tick), 1),
               "\" y1=\"", kTop, "\" y2=\"", kHeight - kBottom, "\"/><text x=\"",
               fixed(x.at(tick), 1), "\" y=\"", kHeight - kBottom + 18,
               "\" text-anchor=\"middle\">", human_bytes(static_cast<uint64_t>(tick)), "</text>\n");
  }
  for (double tick : y.ticks()) {
    svg += cat("<line class=\"grid\" x1=\"", kLeft, "\" x2=\"", kWidth - kRight, "\" y1=\"",
               fixed(y.at(tick), 1), "\" y2=\"", fixed(y.at(tick), 1), "\"/><text x=\"", kLeft - 8,
               "\" y=\"", fixed(y.at(tick) + 4, 1), "\" text-anchor=\"end\">", tick_text(tick),
               "</text>\n");
  }
  svg += cat("<text x=\"", (kLeft + kWidth - kRight) / 2, "\" y=\"", kHeight - 10,
             "\" text-anchor=\"middle\">size of the weights</text>\n",
             "<text transform=\"translate(16 ", (kTop + kHeight - kBottom) / 2,
             ") rotate(-90)\" text-anchor=\"middle\">", escaped(quantity), "</text>\n");
  for (const Point& point : points) {
    const double cx = x.at(point.size), cy = y.at(point.value);
    if (point.error > 0 && point.error < point.value) {  // Two standard errors, cut at the frame.
      const double top = y.at(std::min(y.high, point.value + 2 * point.error)),
                   bottom = y.at(std::max(y.low, point.value - 2 * point.error));
      svg += cat("<line class=\"error\" x1=\"", fixed(cx, 1), "\" x2=\"", fixed(cx, 1), "\" y1=\"",
                 fixed(top, 1), "\" y2=\"", fixed(bottom, 1), "\"/>");
    }
    const bool left = cx > kWidth * 0.7;
    svg += cat("<circle cx=\"", fixed(cx, 1), "\" cy=\"", fixed(cy, 1), "\" r=\"5\"><title>",
               escaped(point.name), "</title></circle><text x=\"", fixed(left ? cx - 9 : cx + 9, 1),
               "\" y=\"", fixed(cy - 7, 1), "\"", left ? " text-anchor=\"end\"" : "", ">",
               escaped(short_name(point.name)), "</text>\n");
  }
  return svg + "</svg>\n";
}

const char kStyle[] = R"(
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fff; --line: #d5dae1; --mark: #1f6feb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ec; --paper: #14181d; --line: #38404a; --mark: #6aa8ff; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
svg { width: 100%; max-width: 760px; height: auto; } svg text { font-size: 12px; fill: var(--ink); }
.grid { stroke: var(--line); } .error { stroke: var(--mark); stroke-width: 1.5; } circle { fill: var(--mark); }
.wide { overflow-x: auto; } table { border-collapse: collapse; } th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
)";

std::string html_table(const ComparisonCells& cells) {
  std::string out = "<div class=\"wide\"><table>\n<tr>";
  for (const std::string& title : cells.header) out += "<th>" + escaped(title) + "</th>";
  out += "</tr>\n";
  for (const auto& row : cells.rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + escaped(cell) + "</td>";
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::vector<Point> points_of(const std::vector<ComparedModel>& models, bool kld) {
  std::vector<Point> points;
  for (const ComparedModel& model : models) {
    const auto& value = kld ? model.kld : model.perplexity;
    const auto& error = kld ? model.kld_se : model.perplexity_se;
    if (model.size_bytes && *model.size_bytes > 0 && value && *value > 0 && std::isfinite(*value))
      points.push_back({*model.size_bytes, *value, error.value_or(0), model.name});
  }
  return points;
}

}  // namespace

std::string comparison_html(const std::vector<ComparedModel>& models, const std::string& title) {
  const ComparisonCells cells = comparison_cells(models);
  std::vector<Point> points = points_of(models, true);
  const bool kld = !points.empty();
  if (!kld) points = points_of(models, false);
  std::string page =
      cat("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta "
          "name=\"viewport\" content=\"width=device-width\">\n<title>",
          escaped(title), "</title>\n<style>", kStyle, "</style></head>\n<body>\n<h1>",
          escaped(title), "</h1>\n");
  if (!points.empty())
    page += plot(points, kld ? "KL divergence from the teacher, nats (lower is better)"
                             : "perplexity (lower is better)");
  page += html_table(cells);
  if (!cells.warning.empty()) page += "<p>" + escaped(cells.warning) + "</p>\n";
  return page + "</body>\n</html>\n";
}

}  // namespace slmc
