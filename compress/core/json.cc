#include "compress/core/json.h"

#include <set>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr int kMaxDepth = 64;

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  // The callback sees each key once; parsers disagree on duplicates, so a file that has one is
  // refused.
  std::vector<std::set<std::string>> keys;
  const Json::parser_callback_t callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) throw_bad_input(cat(where, ": JSON nested deeper than ", kMaxDepth));
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.empty() &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      throw_bad_input(
          cat(where, ": key '", parsed.get<std::string>(), "' appears twice in one object"));
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), callback);
  } catch (const Json::parse_error& error) {
    // nlohmann's message begins with "[json.exception.parse_error.101] parse error at line 1,
    // column 5: "; keep what follows.
    std::string what = error.what();
    const size_t colon = what.find(": ");
    if (colon != std::string::npos) what = what.substr(colon + 2);
    throw_bad_input(cat(where, ": not valid JSON at byte ", error.byte, ": ", what));
  } catch (const Json::out_of_range& error) {  // A number beyond double's range.
    throw_bad_input(cat(where, ": not valid JSON: ", error.what()));
  }
}

Json read_json(const std::string& path) { return parse_json(read_text(path), path); }

}  // namespace slmc
