#include "recipes/recipe.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

const std::vector<std::string> kRecipeKeys = {"name", "vars", "output", "stages"};
const std::vector<std::string> kStageKeys = {"name", "expect", "allow_failure"};

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Reader {
 public:
  Reader(const std::string& file, const StageTable& table) : table_(table) { recipe_.file = file; }

  Recipe read(const RecipeNode& root, const std::vector<std::string>& settings) {
    if (root.kind != RecipeNode::Kind::kMap)
      fail(root, cat("expected a map with 'stages', found ", describe(root)));
    for (const auto& [key, value] : root.entries) {
      if (!contains(kRecipeKeys, key.text))
        fail(key, cat("unknown key '", key.text, "'", did_you_mean(key.text, kRecipeKeys)));
    }
    split_settings(settings);
    if (const RecipeNode* vars = root.find("vars")) read_variables(*vars);
    check_variable_settings();
    recipe_.name = std::filesystem::path(recipe_.file).stem().string();
    if (const RecipeNode* name = root.find("name")) recipe_.name = text(replaced(*name), "name");
    recipe_.output = recipe_.name + "-out";
    if (const RecipeNode* output = root.find("output"))
      recipe_.output = text(replaced(*output), "output");
    const RecipeNode* stages = root.find("stages");
    if (stages == nullptr) fail(root, "'stages' is missing: the ordered list of what to do");
    if (stages->kind != RecipeNode::Kind::kList || stages->items.empty())
      fail(*stages, cat("stages: expected a list, found ", describe(*stages)));
    for (const RecipeNode& item : stages->items) read_stage(item);
    apply_stage_settings();
    return std::move(recipe_);
  }

 private:
  [[noreturn]] void fail(const RecipeNode& node, const std::string& message) const {
    throw_usage(cat(position(recipe_.file, node), ": ", message));
  }

  std::string text(const RecipeNode& node, const std::string& what) const {
    if (node.kind != RecipeNode::Kind::kText || node.text.empty())
      fail(node, cat(what, ": expected a text, found ", describe(node)));
    return node.text;
  }

  void split_settings(const std::vector<std::string>& settings) {
    for (const std::string& setting : settings) {
      const size_t equals = setting.find('=');
      if (equals == 0 || equals == std::string::npos)
        throw_usage(cat("--set: expected key=value, found '", setting, "'"));
      RecipeNode node;
      node.kind = RecipeNode::Kind::kText;
      node.text = setting.substr(equals + 1);
      node.from_command_line = true;
      const std::string key = setting.substr(0, equals);
      (key.find('.') == std::string::npos ? variable_settings_ : stage_settings_)
          .emplace_back(key, node);
    }
  }

  void read_variables(const RecipeNode& vars) {
    if (vars.kind != RecipeNode::Kind::kMap)
      fail(vars, cat("vars: expected a map, found ", describe(vars)));
    for (const auto& [key, value] : vars.entries) {
      if (value.kind == RecipeNode::Kind::kMap)
        fail(value, cat("vars: '", key.text, "' must be a value or a list, found a map"));
      RecipeNode node = replaced(value);  // May use the variables above it.
      for (const auto& [name, setting] : variable_settings_) {
        if (name != key.text) continue;
        node = setting;
        node.line = value.line, node.column = value.column;
      }
      recipe_.variables.emplace_back(key.text, std::move(node));
    }
  }

  std::vector<std::string> variable_names() const {
    std::vector<std::string> names;
    for (const auto& [name, value] : recipe_.variables) names.push_back(name);
    return names;
  }

  void check_variable_settings() const {
    const std::vector<std::string> names = variable_names();
    for (const auto& [name, node] : variable_settings_) {
      if (contains(names, name)) continue;
      throw_usage(cat("--set: ", recipe_.file, " has no variable '", name, "'",
                      did_you_mean(name, names),
                      names.empty() ? ""
                                    : cat(" (it has ", join(names, ", "),
                                          "; an option of a stage is set as stage.option=value)")));
    }
  }

  const RecipeNode& variable(const std::string& name, const RecipeNode& user) const {
    for (const auto& [known, value] : recipe_.variables) {
      if (known == name) return value;
    }
    fail(user, cat("no variable '", name, "' in vars", did_you_mean(name, variable_names())));
  }

  /// `node` with every $<name> replaced (node.h says why it is not ${name} here). A value that is
  /// one variable and nothing else becomes that variable's value, which may be a list.
  RecipeNode replaced(const RecipeNode& node) const {
    RecipeNode result = node;
    for (RecipeNode& item : result.items) item = replaced(item);
    for (auto& [key, value] : result.entries) {
      value = replaced(value);
      if (key.text.find("$<") != std::string::npos) key = replaced(key);
    }
    flatten_lists(result);
    if (result.kind == RecipeNode::Kind::kText && result.text.find("${") != std::string::npos)
      fail(node, cat("'", result.text,
                     "': a variable is written ${name}, of letters, digits, _ "
                     "and -"));
    for (size_t at = 0; result.kind == RecipeNode::Kind::kText &&
                        (at = result.text.find("$<", at)) != std::string::npos;) {
      const size_t end = result.text.find('>', at);
      if (end == std::string::npos) break;
      const RecipeNode& value = variable(result.text.substr(at + 2, end - at - 2), node);
      if (at == 0 && end + 1 == result.text.size()) {
        const int line = result.line, column = result.column;
        result = value;
        result.line = line, result.column = column;
        break;
      }
      if (value.kind != RecipeNode::Kind::kText)
        fail(node, cat("a list cannot stand inside the text '", node.text, "'"));
      if (at == 0) result.from_command_line = value.from_command_line;
      result.text.replace(at, end + 1 - at, value.text);
      at += value.text.size();
    }
    return result;
  }

  /// A list variable inside a list: its members take its place.
  static void flatten_lists(RecipeNode& node) {
    std::vector<RecipeNode> items;
    for (RecipeNode& item : node.items) {
      if (item.kind == RecipeNode::Kind::kList) {
        items.insert(items.end(), item.items.begin(), item.items.end());
      } else {
        items.push_back(std::move(item));
      }
    }
    node.items = std::move(items);
  }

  void read_stage(const RecipeNode& item) {
    if (item.kind != RecipeNode::Kind::kMap)
      fail(item, cat("stages: expected a map such as 'eval: {...}', found ", describe(item)));
    RecipeStage stage{.verb = {},
                      .name = {},
                      .options = {},
                      .expectations = {},
                      .line = item.line,
                      .column = item.column};
    std::vector<std::string> known = table_.names();
    known.insert(known.end(), kStageKeys.begin(), kStageKeys.end());
    for (const auto& [key, value] : item.entries) {
      if (contains(table_.names(), key.text)) {
        if (!stage.verb.empty())
          fail(key, cat("one stage is both ", stage.verb, " and ", key.text,
                        "; each stage begins with its own '- '"));
        stage.verb = key.text;
        stage.options = replaced(value);
        if (stage.options.kind != RecipeNode::Kind::kMap &&
            stage.options.kind != RecipeNode::Kind::kNull) {
          fail(value, cat(key.text, ": expected a map of options, found ", describe(value)));
        }
      } else if (!contains(kStageKeys, field_name(key.text))) {
        fail(key, cat("unknown stage or key '", key.text, "'", did_you_mean(key.text, known),
                      "; stages are ", join(table_.names(), ", ")));
      }
    }
    if (stage.verb.empty())
      fail(item, cat("no stage named here; expected one of ", join(table_.names(), ", ")));
    read_stage_keys(item, stage);
    recipe_.stages.push_back(std::move(stage));
  }

  /// name, expect and allow_failure may stand beside the stage's map or in it.
  void take_out_stage_keys(RecipeNode& item, RecipeStage& stage) const {
    auto& entries = stage.options.entries;
    for (auto at = entries.begin(); at != entries.end();) {
      const std::string key = field_name(at->first.text);
      if (!contains(kStageKeys, key)) {
        ++at;
        continue;
      }
      if (item.find(key) != nullptr)
        fail(at->first, cat("'", key, "' stands both beside the stage and in it"));
      item.entries.push_back(std::move(*at));
      at = entries.erase(at);
    }
  }

  void read_stage_keys(RecipeNode item, RecipeStage& stage) {
    take_out_stage_keys(item, stage);
    if (const RecipeNode* expect = item.find("expect"))
      stage.expectations = parse_expectations(replaced(*expect), recipe_.file);
    if (const RecipeNode* allow = item.find("allow_failure")) {
      set_field_text({}, cat(position(recipe_.file, *allow), ": allow_failure"),
                     replaced(*allow).text, stage.allow_failure);
    }
    const RecipeNode* name = item.find("name");
    stage.name = name != nullptr ? text(replaced(*name), "name") : free_name(stage.verb);
    for (const char c : stage.name) {
      if (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_') continue;
      fail(*name, cat("name: '", stage.name, "' may hold letters, digits, - and _ only"));
    }
    for (const RecipeStage& other : recipe_.stages) {
      if (other.name == stage.name)
        fail(name != nullptr ? *name : item, cat("two stages are named '", stage.name, "'"));
    }
  }

  std::string free_name(const std::string& verb) const {
    const auto taken = [&](const std::string& name) {
      return std::any_of(recipe_.stages.begin(), recipe_.stages.end(),
                         [&](const RecipeStage& stage) { return stage.name == name; });
    };
    if (!taken(verb)) return verb;
    int number = 2;
    while (taken(cat(verb, "-", number))) ++number;
    return cat(verb, "-", number);
  }

  void apply_stage_settings() {
    std::vector<std::string> names;
    for (const RecipeStage& stage : recipe_.stages) names.push_back(stage.name);
    for (auto& [key, node] : stage_settings_) {
      const std::string name = key.substr(0, key.find('.'));
      const std::string option = key.substr(key.find('.') + 1);
      const auto stage = std::find_if(recipe_.stages.begin(), recipe_.stages.end(),
                                      [&](const RecipeStage& each) { return each.name == name; });
      if (stage == recipe_.stages.end())
        throw_usage(
            cat("--set: ", recipe_.file, " has no stage '", name, "'", did_you_mean(name, names)));
      set_option(*stage, option, node);
    }
  }

  static void set_option(RecipeStage& stage, const std::string& option, const RecipeNode& node) {
    stage.options.kind = RecipeNode::Kind::kMap;
    for (auto& [key, value] : stage.options.entries) {
      if (field_name(key.text) == field_name(option)) {
        value = node;
        return;
      }
    }
    RecipeNode key;
    key.kind = RecipeNode::Kind::kText;
    key.text = option;
    stage.options.entries.emplace_back(key, node);
  }

  const StageTable& table_;
  Recipe recipe_;
  std::vector<std::pair<std::string, RecipeNode>> variable_settings_, stage_settings_;
};

}  // namespace

std::vector<std::string> StageTable::names() const {
  std::vector<std::string> result;
  for (const auto& [name, factory] : entries_) result.push_back(name);
  return result;
}

std::unique_ptr<Stage> StageTable::make(const std::string& name) const {
  for (const auto& [known, factory] : entries_) {
    if (known == name) return factory();
  }
  return nullptr;
}

Recipe parse_recipe(const std::string& text, const std::string& path, const StageTable& table,
                    const std::vector<std::string>& settings) {
  return Reader(path, table).read(parse_yaml(text, path), settings);
}

Recipe read_recipe(const std::string& path, const StageTable& table,
                   const std::vector<std::string>& settings) {
  return parse_recipe(read_text(path), path, table, settings);
}

}  // namespace slmc
