#include "formats/labels.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

/// Calls visit(line, "file:number") for each line with anything in it until it returns false.
template <typename Visit>
void for_each_line(const std::string& file, const Visit& visit) {
  const std::string text = read_text(file);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (!visit(line, cat(file, ":", number))) return;
  }
}

Json parse_line(std::string_view line, const std::string& where) {
  try {
    return parse_json(line, where);
  } catch (const Error&) {  // Whose message may quote the text.
    throw_bad_input(cat(where, ": the line is not valid JSON; each line must be one object"));
  }
}

LabelledText read_line(std::string_view line, const std::string& where) {
  const Json json = parse_line(line, where);
  if (!json.is_object() || !json.contains("text") || !json["text"].is_string())
    throw_bad_input(cat(where, ": expected an object with \"text\" and \"label\", as before"));
  if (json.contains("text_pair"))
    throw_unsupported(cat(where, ": \"text_pair\": classes of pairs of texts are not implemented"));
  LabelledText out{json["text"].get<std::string>(), label_of(json), where};
  if (out.label.empty())
    throw_bad_input(cat(where, ": \"label\": expected a text or an integer, found ",
                        json.contains("label") ? json["label"].type_name() : "nothing"));
  if (out.text.find_first_not_of(" \t\r\n") == std::string::npos)
    throw_bad_input(cat(where, ": \"text\" is empty; leave the line out"));
  return out;
}

bool all_digits(const std::string& text) {
  return !text.empty() && text.size() < 10 &&
         text.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

std::string label_of(const Json& line) {
  if (!line.contains("label")) return "";
  const Json& label = line["label"];
  if (label.is_string()) return label.get<std::string>();
  return label.is_number_integer() ? label.dump() : "";
}

bool is_labelled(const std::vector<std::string>& files) {
  if (files.empty() || !files.front().ends_with(".jsonl") ||
      !std::filesystem::is_regular_file(files.front()))
    return false;
  bool labelled = false;
  for_each_line(files.front(), [&](std::string_view line, const std::string& where) {
    try {
      const Json json = parse_json(line, where);
      labelled = json.is_object() && json.contains("text") && json.contains("label");
    } catch (const Error&) {  // Whoever reads it says so.
    }
    return false;
  });
  return labelled;
}

std::vector<LabelledText> read_labelled(const std::vector<std::string>& files) {
  std::vector<LabelledText> texts;
  for (const std::string& file : files)
    for_each_line(file, [&](std::string_view line, const std::string& where) {
      texts.push_back(read_line(line, where));
      return true;
    });
  return texts;
}

std::vector<std::string> distinct_labels(const std::vector<LabelledText>& texts) {
  std::set<std::string> all;
  for (const LabelledText& text : texts) all.insert(text.label);
  std::vector<std::string> names(all.begin(), all.end());
  if (std::all_of(names.begin(), names.end(), all_digits))
    std::sort(names.begin(), names.end(),
              [](const auto& a, const auto& b) { return std::stol(a) < std::stol(b); });
  return names;
}

std::vector<std::string> class_names(const Json& config, int64_t classes) {
  std::vector<std::string> names;
  const bool named =
      config.is_object() && config.contains("id2label") && config["id2label"].is_object();
  for (int64_t i = 0; i < classes; ++i) {
    const std::string key = std::to_string(i);
    const bool here =
        named && config["id2label"].contains(key) && config["id2label"][key].is_string();
    names.push_back(here ? config["id2label"][key].get<std::string>() : "LABEL_" + key);
  }
  return names;
}

void set_class_names(const std::vector<std::string>& names, Json& config) {
  Json by_id = Json::object(), by_label = Json::object();
  for (size_t i = 0; i < names.size(); ++i) {
    by_id[std::to_string(i)] = names[i];
    by_label[names[i]] = i;
  }
  config["id2label"] = std::move(by_id);
  config["label2id"] = std::move(by_label);
  config.erase("num_labels");
}

int64_t class_of(const std::vector<std::string>& names, std::string_view label) {
  const auto found = std::find(names.begin(), names.end(), label);
  return found == names.end() ? -1 : found - names.begin();
}

std::vector<int32_t> encode_within(const Tokenizer& tokenizer, std::string_view text,
                                   int64_t longest, bool* cut) {
  std::vector<int32_t> ids = tokenizer.encode(text, true);
  const int64_t excess = static_cast<int64_t>(ids.size()) - longest;
  if (cut != nullptr) *cut = excess > 0;
  if (excess <= 0) return ids;
  const std::vector<int32_t> bare = tokenizer.encode(text, false);
  const size_t special = ids.size() - bare.size();
  size_t before = 0;  // Special tokens in front of the text.
  while (before < special &&
         !std::equal(bare.begin(), bare.end(), ids.begin() + static_cast<ptrdiff_t>(before)))
    ++before;
  const auto end = ids.end() - static_cast<ptrdiff_t>(special - before);
  const auto gone = std::min<int64_t>(excess, static_cast<int64_t>(bare.size()));
  ids.erase(end - gone, end);
  ids.resize(std::min(ids.size(), static_cast<size_t>(longest)));
  return ids;
}

}  // namespace slmc
