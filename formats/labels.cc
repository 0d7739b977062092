#include "formats/labels.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "compress/core/error.h"
#include "compress/core/lines.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

/// A text that is not empty.
std::string text_of(const Json& line, const char* key, const std::string& where) {
  if (!line.contains(key) || !line[key].is_string())
    throw_bad_input(cat(where, ": \"", key, "\": expected a text, found ",
                        line.contains(key) ? line[key].type_name() : "nothing"));
  const std::string& text = line[key].get_ref<const std::string&>();
  if (text.find_first_not_of(" \t\r\n") == std::string::npos)
    throw_bad_input(cat(where, ": \"", key, "\" is empty; leave the line out"));
  return text;
}

LabelledText read_line(std::string_view line, const std::string& where) {
  const Json json = parse_line(line, where);
  LabelledText out{.text = text_of(json, "text", where),
                   .pair = json.contains("text_pair") ? text_of(json, "text_pair", where) : "",
                   .label = label_of(json),
                   .source = where};
  if (out.label.empty())
    throw_bad_input(cat(where, ": \"label\": expected a text or an integer, found ",
                        json.contains("label") ? json["label"].type_name() : "nothing"));
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
  const std::string& file = files.front();
  for_each_line(read_text(file), file, [&](std::string_view line, const std::string& where) {
    try {
      const Json json = parse_line(line, where);
      labelled = json.contains("text") && json.contains("label");
    } catch (const Error&) {  // Whoever reads it says so.
    }
    return false;
  });
  return labelled;
}

std::vector<LabelledText> read_labelled(const std::vector<std::string>& files) {
  std::vector<LabelledText> texts;
  for (const std::string& file : files)
    for_each_line(read_text(file), file, [&](std::string_view line, const std::string& where) {
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

Encoding encode_within(const Tokenizer& tokenizer, std::string_view text, std::string_view pair,
                       int64_t longest, bool* cut) {
  std::vector<std::vector<int32_t>> texts{tokenizer.encode(text, false)};
  if (!pair.empty()) texts.push_back(tokenizer.encode(pair, false));
  const std::vector<std::vector<int32_t>> none(texts.size());
  const auto limit = static_cast<size_t>(longest);
  const size_t special = tokenizer.assemble(none).ids.size(),
               room = limit > special ? limit - special : 0;
  const auto shorter = [](const auto& a, const auto& b) { return a.size() < b.size(); };
  // Of equal ones the first is the least and the last the greatest.
  const auto [least, greatest] = std::minmax_element(texts.begin(), texts.end(), shorter);
  const size_t all = least == greatest ? least->size() : least->size() + greatest->size();
  if (cut != nullptr) *cut = all > room;
  if (all > room) {
    if (least != greatest) least->resize(std::min(least->size(), room / 2));
    greatest->resize(least == greatest ? room : room - least->size());
  }
  Encoding out = tokenizer.assemble(texts);
  out.ids.resize(std::min(out.ids.size(), limit));
  out.types.resize(out.ids.size());
  if (std::all_of(out.types.begin(), out.types.end(), [](int32_t type) { return type == 0; }))
    out.types.clear();
  return out;
}

}  // namespace slmc
