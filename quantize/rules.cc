#include "quantize/rules.h"

#include <algorithm>
#include <unordered_map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "formats/family.h"

namespace slmc {
namespace {

/// Length of the longest run of characters that two names share.
size_t shared_run(const std::string& a, const std::string& b) {
  std::vector<size_t> above(b.size() + 1, 0), row(b.size() + 1, 0);
  size_t longest = 0;
  for (const char c : a) {
    for (size_t j = 0; j < b.size(); ++j) {
      row[j + 1] = c == b[j] ? above[j] + 1 : 0;
      longest = std::max(longest, row[j + 1]);
    }
    std::swap(above, row);
  }
  return longest;
}

/// The matrix whose name looks most like the expression with its escapes taken out.
std::string closest_matrix(const Model& model, const std::string& expression) {
  std::string literal;
  for (const char c : expression) {
    if (c != '\\' && c != '^' && c != '$') literal += c;
  }
  std::string best;
  size_t most = 0;
  for (const TensorInfo& tensor : model.tensors()) {
    if (tensor.shape.size() < 2) continue;
    const size_t shared = shared_run(literal, tensor.name);
    if (best.empty() || shared > most) best = tensor.name, most = shared;
  }
  return best;
}

Rule parse_rule(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    throw_usage(cat("--rule '", text, "': expected 'REGEX=TYPE', such as 'ffn_down=q8_0'"));
  }
  Rule rule{.text = text, .pattern = {}, .type = dtype_from_name(text.substr(equals + 1))};
  if (find_block_codec(rule.type) == nullptr) {
    std::vector<std::string> known;
    for (const BlockCodec* codec : block_codecs()) known.push_back(codec->name);
    throw_unsupported(cat("--rule '", text, "': ", dtype_name(rule.type),
                          " cannot be written yet; use one of ", join(known, ", ")));
  }
  try {
    rule.pattern =
        std::regex(text.substr(0, equals), std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& error) {
    throw_usage(cat("--rule '", text, "': not a regular expression: ", error.what()));
  }
  return rule;
}

void check_divides(const Rule& rule, const TensorInfo& tensor) {
  const int64_t columns = tensor.shape.back(), block = dtype_block(rule.type);
  if (columns % block == 0) return;
  throw_unsupported(cat("--rule '", rule.text, "': ", tensor.name, " has rows of ", columns,
                        ", which do not divide by the ", block, " of ", dtype_name(rule.type),
                        "; use f16, or a narrower expression"));
}

}  // namespace

std::vector<Rule> parse_rules(const std::vector<std::string>& texts) {
  std::vector<Rule> rules;
  for (const std::string& text : texts) rules.push_back(parse_rule(text));
  return rules;
}

std::vector<TypeChoice> choose_types(const Architecture& arch,
                                     const std::vector<TensorInfo>& tensors, const Scheme& scheme,
                                     bool weighted) {
  // A GGUF fuses some families' tensors (attn_qkv), and the mixes speak of those.
  std::unordered_map<std::string, std::string> stored_name;
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch))
    if (spec.gguf.rows > 0) stored_name[spec.name] = spec.gguf.name;
  std::vector<TypeChoice> choices;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.shape.size() < 2) {
      choices.push_back({DType::kF32, "vectors stay f32", false});
      continue;
    }
    TensorInfo stored = tensor;
    if (const auto found = stored_name.find(tensor.name); found != stored_name.end())
      stored.name = found->second;
    choices.push_back(choose_type(scheme, stored, arch, weighted));
  }
  return choices;
}

std::vector<TypeChoice> choose_types(const Model& model, const Scheme& scheme,
                                     const std::vector<Rule>& rules, bool weighted) {
  std::vector<bool> matched(rules.size(), false);
  std::vector<TypeChoice> choices = choose_types(model.arch(), model.tensors(), scheme, weighted);
  for (size_t t = 0; t < choices.size(); ++t) {
    const TensorInfo& tensor = model.tensors()[t];
    if (tensor.shape.size() < 2) continue;
    TypeChoice& choice = choices[t];
    bool ruled = false;
    for (size_t r = 0; r < rules.size(); ++r) {
      if (!std::regex_search(tensor.name, rules[r].pattern)) continue;
      matched[r] = true;
      if (ruled) continue;
      ruled = true;
      check_divides(rules[r], tensor);
      choice = {rules[r].type, cat("rule '", rules[r].text, "'"), false};
    }
  }
  for (size_t r = 0; r < rules.size(); ++r) {
    if (matched[r]) continue;
    const std::string expression = rules[r].text.substr(0, rules[r].text.rfind('='));
    throw_usage(cat("--rule '", rules[r].text, "' matches no matrix of ", model.path(),
                    " (vectors always stay f32); the nearest is ",
                    closest_matrix(model, expression)));
  }
  return choices;
}

}  // namespace slmc
