#include "compress/cli/completions.h"

#include "compress/cli/global_options.h"
#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

/// A word inside single quotes of any of the three shells.
std::string shell_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

std::vector<Option> all_options(Command& command) {
  std::vector<Option> options = collect_options(command, false);
  GlobalOptions global;
  for (Option& option : collect_options(global, true)) options.push_back(std::move(option));
  return options;
}

std::string verb_names(const CommandList& commands) {
  std::vector<std::string> names;
  for (const auto& command : commands) {
    if (!command->hidden()) names.emplace_back(command->name());
  }
  return join(names, " ");
}

std::string flags_of(const std::vector<Option>& options) {
  std::string flags = "--help";
  for (const Option& option : options) {
    if (!option.info.positional) flags += " " + option.typed_name();
  }
  return flags;
}

/// Choices of all options that have them, by flag: the same flag has the same choices in `command`.
std::string bash_choices(const std::string& verb, const std::vector<Option>& options) {
  std::string out;
  for (const Option& option : options) {
    if (option.info.choices.empty() || option.info.positional) continue;
    out += cat("    ", verb, ",", flag_name(option.info),
               ") words=", shell_quoted(join(option.info.choices, " ")), " ;;\n");
  }
  return out;
}

std::string bash_script(const CommandList& commands) {
  std::string flags, choices;
  for (const auto& command : commands) {
    if (command->hidden()) continue;
    const std::vector<Option> options = all_options(*command);
    const std::string verb(command->name());
    flags += cat("      ", verb, ") words=", shell_quoted(flags_of(options)), " ;;\n");
    choices += bash_choices(verb, options);
  }
  return cat(
      "# slmc completions for bash: source this file, or put it into "
      "~/.local/share/bash-completion/completions/slmc\n",
      "_slmc() {\n  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} "
      "verb=${COMP_WORDS[1]} words=\n",
      "  COMPREPLY=()\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    COMPREPLY=($(compgen -W ",
      shell_quoted(verb_names(commands)),
      " -- \"$word\"))\n    return\n  fi\n  case \"$verb,$before\" in\n", choices,
      "  esac\n  if [ -z \"$words\" ] && [ \"${word#-}\" != \"$word\" ]; then\n    case \"$verb\" "
      "in\n",
      flags,
      "    esac\n  fi\n  if [ -n \"$words\" ]; then\n    COMPREPLY=($(compgen -W \"$words\" -- "
      "\"$word\"))\n  else\n",
      "    compopt -o filenames\n    COMPREPLY=($(compgen -f -- \"$word\"))\n  fi\n}\ncomplete -F "
      "_slmc slmc slmc-run\n");
}

/// zsh's _arguments spells an option as --name[help]:value:action; brackets and colons in the help
/// need a backslash.
std::string zsh_spec(const Option& option) {
  std::string help;
  for (const char c : option.info.help) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') help += '\\';
    help += c;
  }
  std::string spec = option.typed_name() +
                     (option.is_flag() || !option.info.value_without.empty() ? "" : "=") + "[" +
                     help + "]";
  if (option.is_flag() || !option.info.value_without.empty()) return shell_quoted(spec);
  spec += ":value:" +
          (option.info.choices.empty() ? "_files" : "(" + join(option.info.choices, " ") + ")");
  return shell_quoted((option.is_list() ? "*" : "") + spec);
}

std::string zsh_script(const CommandList& commands) {
  std::string verbs, cases;
  for (const auto& command : commands) {
    if (command->hidden()) continue;
    const std::string verb(command->name());
    verbs += cat("    ", shell_quoted(cat(verb, ":", command->summary())), "\n");
    cases += cat("    ", verb, ") _arguments");
    for (const Option& option : all_options(*command)) {
      if (!option.info.positional) cases += cat(" \\\n      ", zsh_spec(option));
    }
    cases += " \\\n      '*:file:_files' ;;\n";
  }
  return cat(
      "#compdef slmc slmc-run\n# slmc completions for zsh: put this file into a folder of $fpath "
      "as _slmc\n_slmc() {\n",
      "  local -a verbs\n  verbs=(\n", verbs,
      "  )\n  if (( CURRENT == 2 )); then\n    _describe verb verbs\n    return\n  fi\n",
      "  local verb=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $verb in\n", cases,
      "  esac\n}\nif [ \"$funcstack[1]\" = _slmc ]; then _slmc \"$@\"; else compdef _slmc slmc "
      "slmc-run; fi\n");
}

/// Inside single quotes fish knows two escapes: \' and \\.
std::string fish_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string fish_script(const CommandList& commands) {
  std::string out =
      "# slmc completions for fish: put this file into ~/.config/fish/completions/slmc.fish\n";
  for (const auto& command : commands) {
    if (command->hidden()) continue;
    out += cat("complete -c slmc -n __fish_use_subcommand -a ", command->name(), " -d ",
               fish_quoted(std::string(command->summary())), "\n");
    for (const Option& option : all_options(*command)) {
      if (option.info.positional) continue;
      out += cat("complete -c slmc -n '__fish_seen_subcommand_from ", command->name(), "' -l ",
                 option.typed_name().substr(2));
      if (!option.info.short_flag.empty()) out += " -s " + option.info.short_flag;
      if (!option.info.choices.empty())
        out += cat(" -x -a ", fish_quoted(join(option.info.choices, " ")));
      else if (!option.is_flag())
        out += " -r";
      out += cat(" -d ", fish_quoted(option.info.help), "\n");
    }
  }
  return out;
}

}  // namespace

std::string completion_script(const std::string& shell, const CommandList& commands) {
  if (shell == "bash") return bash_script(commands);
  if (shell == "zsh") return zsh_script(commands);
  if (shell == "fish") return fish_script(commands);
  throw_usage(cat("completions: expected bash, zsh or fish, found '", shell, "'"));
}

}  // namespace slmc
