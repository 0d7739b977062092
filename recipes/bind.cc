// Options of a stage from a recipe's map: the same conversions and refusals as on the command line,
// with positions.
#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"
#include "recipes/recipe.h"

namespace slmc {
namespace {

class Binder : public Fields {
 public:
  Binder(const Recipe& recipe, const RecipeStage& spec, const ValueResolver& resolve)
      : recipe_(recipe), spec_(spec), resolve_(resolve) {}

  void visit(const FieldInfo& info, bool& value) override { scalar(info, value); }
  void visit(const FieldInfo& info, int64_t& value) override { scalar(info, value); }
  void visit(const FieldInfo& info, double& value) override { scalar(info, value); }
  void visit(const FieldInfo& info, std::string& value) override {
    if (const RecipeNode* node = find(info))
      set_field_text(info, label(*node, info), text_of(info, *node), value);
    if (info.required && value.empty()) missing(info);
  }
  void visit(const FieldInfo& info, std::vector<std::string>& value) override {
    if (const RecipeNode* node = find(info))
      set_field_text(info, label(*node, info), list_of(info, *node), value);
    if (info.required && value.empty()) missing(info);
  }

 private:
  const RecipeNode* find(const FieldInfo& info) const { return spec_.options.find(info.name); }

  std::string label(const RecipeNode& node, const FieldInfo& info) const {
    return cat(position(recipe_.file, node), ": ", info.name);
  }

  template <typename T>
  void scalar(const FieldInfo& info, T& value) {
    const RecipeNode* node = find(info);
    if (node == nullptr) {
      if (info.required) missing(info);
      return;
    }
    if (node->kind != RecipeNode::Kind::kText)
      throw_usage(cat(label(*node, info), ": expected one value, found ", describe(*node)));
    set_field_text(info, label(*node, info), node->text, value);
  }

  std::string text_of(const FieldInfo& info, const RecipeNode& node) const {
    if (node.kind == RecipeNode::Kind::kText) return resolve_(info, node);
    if (node.kind == RecipeNode::Kind::kMap) return join(pairs_of(info, node), ",");
    throw_usage(cat(label(node, info), ": expected one value, found ", describe(node)));
  }

  std::vector<std::string> list_of(const FieldInfo& info, const RecipeNode& node) const {
    if (node.kind == RecipeNode::Kind::kText) return {resolve_(info, node)};
    if (node.kind == RecipeNode::Kind::kMap) return pairs_of(info, node);
    std::vector<std::string> texts;
    for (const RecipeNode& item : node.items) {
      if (item.kind == RecipeNode::Kind::kMap) {
        for (std::string& pair : pairs_of(info, item)) texts.push_back(std::move(pair));
      } else if (item.kind == RecipeNode::Kind::kText) {
        texts.push_back(resolve_(info, item));
      } else {
        throw_usage(cat(label(item, info), ": expected a value, found ", describe(item)));
      }
    }
    return texts;
  }

  std::vector<std::string> pairs_of(const FieldInfo& info, const RecipeNode& node) const {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : node.entries) {
      if (value.kind != RecipeNode::Kind::kText)
        throw_usage(cat(label(value, info), ".", key.text, ": expected one value, found ",
                        describe(value)));
      pairs.push_back(cat(key.text, "=", value.text));
    }
    return pairs;
  }

  [[noreturn]] void missing(const FieldInfo& info) const {
    throw_usage(cat(recipe_.file, ":", spec_.line, ":", spec_.column, ": ", spec_.verb, " needs '",
                    info.name, "': ", info.help));
  }

  const Recipe& recipe_;
  const RecipeStage& spec_;
  const ValueResolver& resolve_;
};

}  // namespace

void bind_options(const Recipe& recipe, const RecipeStage& spec, const ValueResolver& resolve,
                  Stage& stage) {
  // Unknown keys first: a misspelt required key is best called misspelt.
  std::vector<std::string> known;
  for (const FieldInfo& info : field_infos(stage)) known.push_back(info.name);
  for (const auto& [key, value] : spec.options.entries) {
    if (std::find(known.begin(), known.end(), field_name(key.text)) != known.end()) continue;
    throw_usage(cat(position(recipe.file, key), ": ", spec.verb, " has no option '", key.text, "'",
                    did_you_mean(field_name(key.text), known)));
  }
  Binder binder(recipe, spec, resolve);
  stage.visit(binder);
}

}  // namespace slmc
