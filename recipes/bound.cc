#include "recipes/bound.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/hub_cache.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

std::string normal(const fs::path& path) { return path.lexically_normal().string(); }

class RecipeBinder {
 public:
  explicit RecipeBinder(const Recipe& recipe)
      : recipe_(recipe), folder_(fs::path(recipe.file).parent_path()) {}

  void bind(const RecipeStage& spec, const StageTable& table) {
    BoundStage bound{.spec = &spec, .stage = table.make(spec.verb), .output = {}, .after = {}};
    SLMC_CHECK(bound.stage != nullptr, "a recipe stage without a factory: " + spec.verb);
    current_ = &bound;
    bind_options(
        recipe_, spec,
        [this](const FieldInfo& info, const RecipeNode& node) { return resolve(info, node); },
        *bound.stage);
    for (const BoundStage& other : stages) {
      if (bound.output.empty() || other.output.empty()) continue;
      const std::string where = cat(recipe_.file, ":", spec.line, ":", spec.column, ": writes ");
      if (other.output == bound.output)
        throw_usage(cat(where, bound.output, ", and so does stage '", other.spec->name, "'"));
      if (bound.output.starts_with(other.output + "/") ||
          other.output.starts_with(bound.output + "/"))
        throw_usage(cat(where, bound.output, ", and stage '", other.spec->name, "' ", other.output,
                        "; one would change what the other wrote"));
    }
    stages.push_back(std::move(bound));
    for (const Expectation& expectation : spec.expectations) {
      for (const std::string& name : stages_in(expectation)) {
        const std::vector<std::string> names = stage_names();
        if (std::find(names.begin(), names.end(), name) == names.end())
          throw_usage(cat(recipe_.file, ":", expectation.line, ":", expectation.column,
                          ": expect: no stage up to this one is called '", name, "'",
                          did_you_mean(name, names)));
      }
    }
  }

  std::vector<BoundStage> stages;

 private:
  std::string resolve(const FieldInfo& info, const RecipeNode& node) {
    const std::string& text = node.text;
    if (text.rfind("@@", 0) == 0) return text.substr(1);
    if (text.rfind("@", 0) == 0) return referenced(node);
    if (info.name == "output") {
      current_->output = without_trailing_slash(normal(fs::path(recipe_.output) / text));
      if (fs::path(current_->output) == fs::path(without_trailing_slash(normal(recipe_.output))))
        throw_usage(cat(position(recipe_.file, node), ": output: '", text,
                        "' is the recipe's own folder; name a file or a folder in it"));
      return current_->output;
    }
    if (text.empty() || !names_a_path(info.value_name)) return text;
    const std::string path = normal((node.from_command_line ? fs::path() : folder_) / text);
    // "layers:4" and the like: an option may take more than paths, and then only what exists is
    // one. A model may also be named as in the Hugging Face cache.
    const bool mixed = info.value_name.find_first_of("|,:") != std::string::npos ||
                       text.find(':') != std::string::npos;
    if (std::error_code error; fs::exists(path, error)) return path;
    return mixed || !find_in_hub_cache(text).empty() ? text : path;
  }

  std::string referenced(const RecipeNode& node) {
    const size_t slash = node.text.find('/');
    const std::string name =
        node.text.substr(1, slash == std::string::npos ? std::string::npos : slash - 1);
    for (const BoundStage& stage : stages) {
      if (stage.spec->name != name) continue;
      if (stage.output.empty())
        throw_usage(cat(position(recipe_.file, node), ": stage '", name, "' writes nothing that @",
                        name, " could be"));
      current_->after.push_back(name);
      return slash == std::string::npos ? stage.output : stage.output + node.text.substr(slash);
    }
    throw_usage(cat(position(recipe_.file, node), ": @", name,
                    ": no stage before this one has that name", did_you_mean(name, stage_names())));
  }

  std::vector<std::string> stage_names() const {
    std::vector<std::string> names;
    for (const BoundStage& stage : stages) names.push_back(stage.spec->name);
    return names;
  }

  const Recipe& recipe_;
  fs::path folder_;
  BoundStage* current_ = nullptr;
};

}  // namespace

std::vector<BoundStage> bind_recipe(const Recipe& recipe, const StageTable& table) {
  RecipeBinder binder(recipe);
  for (const RecipeStage& spec : recipe.stages) binder.bind(spec, table);
  return std::move(binder.stages);
}

bool names_a_path(const std::string& value_name) {
  static const std::vector<std::string> kWords = {"FILE",  "FILES",      "FOLDER",    "DIR",
                                                  "PATH",  "MODEL",      "TEACHER",   "STUDENT",
                                                  "CACHE", "CHECKPOINT", "TOKENIZER", "OUT"};
  std::string word;
  for (const char c : value_name + "|") {
    if (std::isalpha(static_cast<unsigned char>(c))) {
      word += c;
    } else {
      if (std::find(kWords.begin(), kWords.end(), word) != kWords.end()) return true;
      word.clear();
    }
  }
  return false;
}

}  // namespace slmc
