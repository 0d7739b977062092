#include "compress/cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <memory>
#include <tuple>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

std::string upper(std::string text) {
  for (char& c : text)
    c = c == '_' ? '-' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

class Collector : public Fields {
 public:
  Collector(std::vector<Option>& options, bool global) : options_(options), global_(global) {}

  void visit(const FieldInfo& info, bool& value) override {
    add(info, &value, "").on_by_default = value;
  }
  void visit(const FieldInfo& info, int64_t& value) override {
    add(info, &value, info.required || value == 0 ? "" : cat(value));
  }
  void visit(const FieldInfo& info, double& value) override {
    add(info, &value, info.required || value == 0 ? "" : cat(value));
  }
  void visit(const FieldInfo& info, std::string& value) override { add(info, &value, value); }
  void visit(const FieldInfo& info, std::vector<std::string>& value) override {
    add(info, &value, join(value, " "));
  }

 private:
  template <typename T>
  Option& add(const FieldInfo& info, T* value, const std::string& default_text) {
    Option option{.info = info, .target = value, .default_text = default_text, .global = global_};
    options_.push_back(std::move(option));
    return options_.back();
  }

  std::vector<Option>& options_;
  bool global_;
};

/// CLI11 takes "[a,b]" for a list of two. This before it keeps it from that.
constexpr char kGuard = '\x01';

std::string guarded(const std::string& argument) {
  size_t value = 0;
  if (argument.rfind("--", 0) == 0) {
    const size_t equals = argument.find('=');
    if (equals == std::string::npos) return argument;
    value = equals + 1;
  } else if (argument.rfind("-", 0) == 0) {
    value = std::min<size_t>(2, argument.size());
  }
  if (value >= argument.size() || argument[value] != '[') return argument;
  return argument.substr(0, value) + kGuard + argument.substr(value);
}

std::string unguarded(const std::string& value) {
  return value.empty() || value[0] != kGuard ? value : value.substr(1);
}

/// CLI11's spelling of all names of an option.
std::string cli_names(const Option& option) {
  std::string names = flag_name(option.info);
  if (!option.info.short_flag.empty()) names += ",-" + option.info.short_flag;
  if (option.info.positional) names += "," + option.info.name;
  return names;
}

struct Bound {
  const Option* option = nullptr;
  CLI::Option* cli = nullptr;
  CLI::Option* off = nullptr;  ///< --no-x
};

/// Everything is bound as text; conversion and its messages are ours (field_text.h).
class Parser {
 public:
  Parser(const std::vector<Option>& options, std::string verb) : verb_(std::move(verb)) {
    app_.set_help_flag();
    app_.allow_extras();
    help_ = app_.add_flag("-h,--help");
    for (const Option& option : options) bind(option);
  }

  ParseResult parse(const std::vector<std::string>& arguments) {
    try {
      std::vector<std::string> reversed;
      for (auto at = arguments.rbegin(); at != arguments.rend(); ++at)
        reversed.push_back(guarded(*at));
      app_.parse(std::move(reversed));
    } catch (const CLI::ParseError& error) {
      const std::string message = error.what();
      throw_usage(cat(message.substr(0, message.find(':')), " needs a value", hint()));
    }
    if (help_->count() > 0) return {.help = true};
    refuse_swallowed(arguments);
    refuse_extras();
    for (const Bound& bound : bound_) set(bound);
    for (const Bound& bound : bound_) require(bound);
    return {};
  }

 private:
  void bind(const Option& option) {
    Bound bound{.option = &option};
    const std::string names = cli_names(option);
    sinks_.push_back(std::make_unique<std::vector<std::string>>());
    if (option.is_flag()) {
      bound.cli = app_.add_flag(names, *sinks_.back());
      bound.off = app_.add_flag("--no-" + flag_name(option.info).substr(2));
    } else if (!option.info.value_without.empty()) {
      bound.cli = app_.add_flag(flag_name(option.info) + "{" + option.info.value_without + "}",
                                *sinks_.back());
    } else {
      bound.cli = app_.add_option(names, *sinks_.back());
      if (option.is_list()) {
        bound.cli->expected(1, CLI::detail::expected_max_vector_size);
      } else {
        bound.cli->expected(1)->allow_extra_args(false);
      }
    }
    bound.cli->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    bound_.push_back(bound);
  }

  std::string hint() const { return cat(" (slmc ", verb_, " --help lists the options)"); }

  void refuse_extras() const {
    for (const std::string& given : app_.remaining()) {
      const std::string extra = unguarded(given);
      if (extra == "--") continue;
      if (extra.size() > 1 && extra[0] == '-') refuse_option(extra);
      throw_usage(cat("unexpected argument '", extra, "'", hint()));
    }
  }

  [[noreturn]] void refuse_option(const std::string& given) const {
    const std::string name = given.substr(0, given.find('='));
    std::vector<std::string> known{"--help"};
    for (const Bound& bound : bound_) {
      known.push_back(flag_name(bound.option->info));
      if (bound.option->on_by_default) known.push_back(bound.option->typed_name());
    }
    const std::string near = name.rfind("--", 0) == 0 ? nearest(name, known) : "";
    throw_usage(
        cat("unknown option ", name, near.empty() ? hint() : cat("; did you mean ", near, "?")));
  }

  void set(const Bound& bound) {
    const Option& option = *bound.option;
    const std::string label = option.shown_name();
    std::vector<std::string> given = bound.cli->results();
    std::transform(given.begin(), given.end(), given.begin(), unguarded);
    if (bound.off != nullptr && bound.off->count() > 0) {
      if (!given.empty())
        throw_usage(cat(flag_name(option.info), " and its opposite are both given"));
      *std::get<bool*>(option.target) = false;
      return;
    }
    if (given.empty()) return;
    if (option.info.positional && given[0].empty())
      throw_usage(cat(label, " is empty: ", option.info.help));
    if (given.size() > 1 && option.info.positional && !option.is_list()) {
      throw_usage(cat("unexpected argument '", given[1], "'", hint()));
    }
    if (given.size() > 1 && !option.is_list() && !option.is_flag()) {
      throw_usage(cat(label, " is given twice ('", given[0], "' and '", given[1], "')"));
    }
    if (auto* list = std::get_if<std::vector<std::string>*>(&option.target)) {
      set_field_text(option.info, label, given, **list);
    } else if (auto* flag = std::get_if<bool*>(&option.target)) {
      set_field_text(option.info, label, given.back(), **flag);
    } else if (auto* integer = std::get_if<int64_t*>(&option.target)) {
      set_field_text(option.info, label, given[0], **integer);
    } else if (auto* number = std::get_if<double*>(&option.target)) {
      set_field_text(option.info, label, given[0], **number);
    } else {
      set_field_text(option.info, label, given[0], *std::get<std::string*>(option.target));
    }
  }

  static bool spells(const Option& option, const std::string& word) {
    return word == flag_name(option.info) ||
           (!option.info.short_flag.empty() && word == "-" + option.info.short_flag);
  }

  /// "--data --output x": CLI11 takes the next word whatever it is; a known option is certainly not
  /// meant as a value.
  void refuse_swallowed(const std::vector<std::string>& arguments) const {
    for (size_t i = 0; i + 1 < arguments.size() && arguments[i] != "--"; ++i) {
      const auto taker = std::find_if(bound_.begin(), bound_.end(), [&](const Bound& bound) {
        return !bound.option->is_flag() && bound.option->info.value_without.empty() &&
               spells(*bound.option, arguments[i]);
      });
      if (taker == bound_.end()) continue;
      const std::string& value = arguments[i + 1];
      if (std::any_of(bound_.begin(), bound_.end(),
                      [&](const Bound& bound) { return spells(*bound.option, value); })) {
        throw_usage(cat(arguments[i], " needs a value, found the option ", value, hint()));
      }
      ++i;  // The value is spoken for.
    }
  }

  void require(const Bound& bound) const {
    const Option& option = *bound.option;
    if (!option.info.required || bound.cli->count() > 0) return;
    std::string message = cat(option.shown_name(), " is missing: ", option.info.help);
    for (const Bound& other : bound_) {
      if (option.info.positional && other.option->is_list() && other.cli->count() > 1 &&
          !other.option->info.positional) {
        message = cat(option.shown_name(), " is missing (", other.option->shown_name(),
                      " takes all values that follow it; write ", option.shown_name(),
                      " first, or put -- before it)");
      }
    }
    throw_usage(message);
  }

  CLI::App app_;
  CLI::Option* help_ = nullptr;
  std::string verb_;
  std::vector<std::unique_ptr<std::vector<std::string>>> sinks_;
  std::vector<Bound> bound_;
};

}  // namespace

std::string Option::shown_name() const {
  if (info.positional) return info.value_name.empty() ? upper(info.name) : info.value_name;
  return on_by_default ? "--[no-]" + flag_name(info).substr(2) : flag_name(info);
}

std::string Option::typed_name() const {
  return on_by_default ? "--no-" + flag_name(info).substr(2) : flag_name(info);
}

std::string Option::shown_value() const {
  if (is_flag()) return "";
  if (!info.value_name.empty()) return info.value_name;
  if (!info.choices.empty() && info.choices.size() <= 6) return join(info.choices, "|");
  if (std::holds_alternative<int64_t*>(target)) return "N";
  if (std::holds_alternative<double*>(target)) return "X";
  return "TEXT";
}

std::vector<Option> collect_options(Configurable& subject, bool global) {
  std::vector<Option> options;
  Collector collector(options, global);
  subject.visit(collector);
  return options;
}

ParseResult parse_options(const std::vector<Option>& options,
                          const std::vector<std::string>& arguments, const std::string& verb) {
  return Parser(options, verb).parse(arguments);
}

}  // namespace slmc
