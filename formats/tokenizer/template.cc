// Post-processors: what is put around a text's ids, and how two texts are joined.
#include <algorithm>
#include <utility>

#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/parts.h"

namespace slmc::tokenization {
namespace {

using FindId = std::function<int32_t(const std::string&)>;
using Parts = std::vector<Template::Part>;

bool is_token_id(const Json& json) {
  return json.is_number_integer() && json.get<int64_t>() >= 0 && json.get<int64_t>() < 1 << 23;
}

int32_t type_id(const Fields& fields) {
  if (fields.find("type_id") == nullptr) return 0;
  const int64_t type = fields.integer("type_id");
  if (type < 0 || type > 255)
    throw_bad_input(cat(fields.where(), ": type_id ", type, " is not from 0 to 255"));
  return static_cast<int32_t>(type);
}

std::vector<int32_t> special_ids(const std::string& name, const Json* specials,
                                 const FindId& find_id, const std::string& where) {
  std::vector<int32_t> ids;
  if (specials != nullptr && specials->is_object() && specials->contains(name)) {
    for (const Json& id : Fields((*specials)[name], where).array("ids")) {
      if (!is_token_id(id)) throw_bad_input(cat(where, ": a special token's id is not a token id"));
      ids.push_back(id.get<int32_t>());
    }
    return ids;
  }
  ids.push_back(find_id(name));
  if (ids[0] < 0)
    throw_bad_input(
        cat(where, ": the template names the token ", Json(name).dump(), ", which does not exist"));
  return ids;
}

/// `texts`: 1 for a template of one text, 2 for a pair's; each must be there once.
Parts read_parts(const Json& list, int texts, const Json* specials, const FindId& find_id,
                 const std::string& where) {
  Parts parts;
  int seen[2] = {0, 0};
  for (const Json& entry : list) {
    if (!entry.is_object() || entry.size() != 1)
      throw_bad_input(cat(where, ": a template's entry must have one key"));
    const std::string key = entry.begin().key();
    if (key != "Sequence" && key != "SpecialToken")
      throw_bad_input(cat(where, ": a template's entry must be Sequence or SpecialToken"));
    const Fields fields(entry.begin().value(), where);
    const std::string id = fields.string("id");
    Template::Part part;
    part.type = type_id(fields);
    if (key == "SpecialToken") {
      part.ids = special_ids(id, specials, find_id, where);
    } else {
      if (id != "A" && id != "B")
        throw_bad_input(cat(where, ": a template's sequence must be A or B, found ", id));
      part.text = id == "A" ? 0 : 1;
      ++seen[part.text];
    }
    parts.push_back(std::move(part));
  }
  if (seen[0] > 1 || seen[1] > 1)
    throw_unsupported(cat(where, ": a template that repeats the text"));
  if (seen[0] < 1 || seen[1] != texts - 1)
    throw_unsupported(cat(where, ": a template without the text"));
  return parts;
}

/// [CLS] A [SEP] and its like.
Template framed(const Fields& fields, bool roberta, const std::string& where) {
  const auto id = [&](const char* key) {
    const Json& pair = fields.array(key);
    if (pair.size() != 2 || !is_token_id(pair[1]))
      throw_bad_input(cat(where, ": '", key, "' must be [token, id]"));
    return pair[1].get<int32_t>();
  };
  const int32_t begin = id("cls"), end = id("sep");
  const int32_t second = roberta ? 0 : 1;
  Template result;
  result.single = {{-1, {begin}, 0}, {0, {}, 0}, {-1, {end}, 0}};
  result.pair = result.single;
  if (roberta) result.pair.push_back({-1, {end}, 0});
  result.pair.push_back({1, {}, second});
  result.pair.push_back({-1, {end}, second});
  return result;
}

/// A later processor takes what the earlier ones made for its first text.
void wrap(Template& inner, Template outer, const std::string& where) {
  const auto plain = [](const Parts& parts, int texts) {
    return static_cast<int>(parts.size()) == texts &&
           std::all_of(parts.begin(), parts.end(), [](const auto& p) { return p.text >= 0; });
  };
  if (plain(inner.single, 1) && plain(inner.pair, 2)) {
    inner = std::move(outer);
  } else if (!plain(outer.single, 1) || !plain(outer.pair, 2)) {
    throw_unsupported(cat(where, ": two post-processors that both add tokens"));
  }
}

}  // namespace

Template make_template(const Json& json, const FindId& find_id, const std::string& where) {
  Template result;
  if (json.is_null()) return result;
  const Fields fields(json, where);
  const std::string type = fields.string("type");
  if (type == "ByteLevel") return result;  // It only trims offsets.
  if (type == "Sequence") {
    for (const Json& part : fields.array("processors"))
      wrap(result, make_template(part, find_id, where), where);
    return result;
  }
  if (type == "BertProcessing" || type == "RobertaProcessing")
    return framed(fields, type == "RobertaProcessing", where);
  if (type != "TemplateProcessing")
    throw_unsupported(cat(where, ": post-processor ", type, " is not supported"));
  const Json* specials = fields.find("special_tokens");
  result.single = read_parts(fields.array("single"), 1, specials, find_id, where);
  if (fields.find("pair") != nullptr)
    result.pair = read_parts(fields.array("pair"), 2, specials, find_id, where);
  return result;
}

}  // namespace slmc::tokenization
